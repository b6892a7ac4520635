package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// Mark implements [naming.Marker] with the mark of the entry. It reads the entry and writes it
// in a transaction that fails if the entry has changed since, up to ten times. The entry keeps
// its key and its lease. Mark also finds the entry of a program on the old package's API.
func (s *Store) Mark(ctx context.Context, service, id string, draining bool) error {
	if err := naming.CheckID(service, id); err != nil {
		return err
	}
	if s.layout.noMarks || s.layout.codec.NoDrainingMark {
		return fmt.Errorf("%w: mark %q in service %q: the format has no place for the mark of an endpoint that drains, or Options.NoDrainingMark turns the mark off", naming.ErrInvalid, id, service)
	}
	p := &idPlan{id: id, key: s.layout.key(service, id), readFirst: true}
	p.rawKey, _ = s.layout.rawKey(service, id)
	err := s.mark(ctx, service, p, draining)
	if err != nil {
		err = fmt.Errorf("etcd: mark %q in %q: %w", id, service, s.describe(ctx, needs(err, "read and write", "the key %q", p.key)))
	}
	return err
}

// mark marks the entries of a plan.
func (s *Store) mark(ctx context.Context, service string, p *idPlan, draining bool) error {
	const tries = 10
	for range tries {
		found, err := s.readOccupied(ctx, service, []*idPlan{p})
		if err != nil {
			return err
		}
		guards, ops, err := s.markOps(service, p, found, draining)
		if err != nil || len(ops) == 0 {
			return err
		}
		done, err := s.doOps(ctx, guards, ops)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("the entry was changed %d times while it was looked at", tries)
}

// markOps returns the puts that mark the entries of a plan, and the guards that fail if an
// entry was changed since it was read. It returns no put if the entries are as they should be.
func (s *Store) markOps(service string, p *idPlan, found occupied, draining bool) (guards []clientv3.Cmp, ops []clientv3.Op, err error) {
	there := false
	for _, kv := range []*mvccpb.KeyValue{found.own[p], found.raw[p]} {
		if kv == nil {
			continue
		}
		value, mine, err := s.layout.remark(service, p.id, kv, draining)
		if err != nil {
			return nil, nil, err
		}
		there = there || mine
		if mine && !bytes.Equal(value, kv.Value) {
			key := string(kv.Key)
			guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision))
			ops = append(ops, clientv3.OpPut(key, string(value), clientv3.WithIgnoreLease()))
		}
	}
	if !there {
		return nil, nil, naming.ErrNotFound
	}
	return guards, ops, nil
}

// remark returns the value of an entry with the mark, or without. mine says that the entry is
// that of the endpoint id. The error is [naming.ErrInvalid] if the entry cannot be
// understood, or if the format cannot hold it with the mark.
func (l *layout) remark(service, id string, kv *mvccpb.KeyValue, draining bool) (value []byte, mine bool, err error) {
	tail := string(kv.Key[len(l.dir(service)):])
	e, owner, mine, err := l.entry(service, tail, kv.Value)
	switch {
	case !mine || owner != id:
		return nil, false, nil
	case err != nil:
		return nil, true, fmt.Errorf("%w: the entry at the key %q cannot be understood: %w", naming.ErrInvalid, kv.Key, err)
	case e.Draining == draining:
		return kv.Value, true, nil
	}
	e.Draining = draining
	if value, err = l.encode(service, e); err != nil {
		return nil, true, err
	}
	// A put must not turn the entry into another one.
	read, owner, still, err := l.entry(service, tail, value)
	if err == nil && (!still || owner != id || !read.Equal(e)) {
		err = errors.New("the format would change it")
	}
	if err != nil {
		return nil, true, fmt.Errorf("%w: the entry at the key %q cannot be written with another mark: %w", naming.ErrInvalid, kv.Key, err)
	}
	return value, true, nil
}
