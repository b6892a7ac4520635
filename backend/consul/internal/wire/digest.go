package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

// Digest is a hash of the place of an entry and of all that the entry says of its
// endpoint. Entries that differ in either have different digests. Checks and indices
// have no part in it, except that the weight for warnings counts while it applies.
type Digest [16]byte

// Digest returns the digest of an entry.
func (e *Entry) Digest() Digest {
	d := digester{b: make([]byte, 0, 512), keys: make([]string, 0, 16)}
	s := &e.Service
	for _, text := range [...]string{e.Node.Node, e.Node.Address, s.ID, s.Address, s.SocketPath, s.Kind} {
		d.str(text)
	}
	d.number(s.Port)
	d.number(len(s.Ports))
	for _, p := range s.Ports {
		d.str(p.Name)
		d.number(p.Port)
		if p.Default {
			d.str(p.Name)
		}
	}
	d.number(s.Weights.Passing)
	if e.Warning() {
		d.number(s.Weights.Warning)
	}
	d.number(len(s.Tags))
	for _, tag := range s.Tags {
		d.str(tag)
	}
	d.object(s.Meta)
	d.object(s.TaggedAddresses)
	sum := sha256.Sum256(d.b)
	return Digest(sum[:16])
}

// digester collects what to hash. Each text has its length before it, so that no two
// entries give the same bytes.
type digester struct {
	b    []byte
	keys []string // reused by object
}

func (d *digester) number(n int) { d.b = binary.AppendVarint(d.b, int64(n)) }

func (d *digester) str(s string) {
	d.number(len(s))
	d.b = append(d.b, s...)
}

func (d *digester) object(m map[string]string) {
	d.number(len(m))
	d.keys = slices.AppendSeq(d.keys[:0], maps.Keys(m))
	slices.Sort(d.keys)
	for _, key := range d.keys {
		d.str(key)
		d.str(m[key])
	}
}
