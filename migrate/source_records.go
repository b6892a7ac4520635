package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// RecordsOptions are the options of [Records]. The zero value and a nil pointer mean the
// defaults.
type RecordsOptions struct {
	// Logger gets a warning when records cannot be used, at most one in ten seconds,
	// and what a [naming.Client] logs about the two watches. Nil means
	// slog.Default().
	Logger *slog.Logger

	// OldName and NewName name the registries in logs and errors. Empty means "old"
	// and "new".
	OldName, NewName string

	// FirstWait is how long all states stay unknown when one registry has answered
	// and the other has not. 0 means two seconds, and the most is a minute. A
	// negative value means not to wait.
	//
	// A longer FirstWait reads the newer record more often if a registry is slow. An
	// unknown state is safe with every phase, but a server that starts is ready only
	// when it is in the old registry. So a longer FirstWait delays a start after the
	// old registry was switched off.
	FirstWait time.Duration
}

// Records returns a Source that reads the phases from both registries, which the caller
// closes before the stores. Functions [WriteRecord] and [ReadRecords] write and read the
// same records. So a phase changes for all programs that can reach a registry, and no
// other system is needed.
//
// A record is an endpoint of the service [RecordService]. Its ID is the name of the
// service that it is about, or "*", it has no address, and its metadata are
//
//	{"phase": 3, "share": 0.1, "seq": 12, "by": "ada", "format": 1}
//
// Only the phase is required. It is the number or the name of a [Phase]. Each record is
// in both registries, so that a phase outlives either of them. The state with the higher
// Seq counts, by the rules of [State.Seq]. A record never lowers the Seq of a state that
// this program has read: not when one registry is stale, was wiped or was restored from a
// backup, and not when a record was deleted. After a restart, a program reads what the
// registries have then.
//
// All states are unknown until both registries have answered, or FirstWait has passed
// since the first answer. The reason is that a registry that was down when a phase was
// written has an older record. An unknown state is safe with every phase; an old record
// is safe only if it is at most three phases behind. A service is also unknown if there
// is neither a record of it nor a record of "*".
//
// A record that is too large, not valid, or of an unknown format counts as missing. Err
// names it. Err is also not nil while one of the registries is not fresh, since the other
// may have an older record, and while a record is ignored because of its lower Seq: see
// [WriteRecord] for the remedy. An endpoint that a registry withholds is still a record.
//
// A store must keep endpoints that have metadata and no address. Stores in the format of
// another framework do not. The records are then kept in a second store on the same
// registry, in the default format of its backend. For a registry that cannot be written,
// the store is nil, and all records are in the other registry.
//
// The right to write the service [RecordService] is the right to choose where all servers
// register. The error is [naming.ErrInvalid] for two nil stores and for two equal stores.
func Records(old, next naming.Store, opts *RecordsOptions) (Source, error) {
	if err := checkStores(old, next); err != nil {
		return nil, fmt.Errorf("migrate: records: %w", err)
	}
	o := opts.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	r := &records{
		wait: o.FirstWait, problems: problemLog{log: o.Logger}, most: naming.MaxServices,
		wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
	}
	for _, side := range []struct {
		name  string
		store naming.Store
	}{{o.OldName, old}, {o.NewName, next}} {
		if side.store == nil {
			continue
		}
		if err := r.add(side.name, side.store, o.Logger); err != nil {
			cancel()
			r.closeSides()
			return nil, fmt.Errorf("migrate: records: %w", err)
		}
	}
	r.setErr(r.failure(""))
	go r.run(ctx)
	return r, nil
}

// checkStores checks the stores of records.
func checkStores(old, next naming.Store) error {
	switch {
	case old == nil && next == nil:
		return fmt.Errorf("%w: both stores are nil", naming.ErrInvalid)
	case old != nil && next != nil && sameStore(old, next):
		return fmt.Errorf("%w: both registries are the same store", naming.ErrInvalid)
	}
	return nil
}

// withDefaults returns the options with every value in range.
func (opts *RecordsOptions) withDefaults() RecordsOptions {
	var o RecordsOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OldName == "" {
		o.OldName = "old"
	}
	if o.NewName == "" {
		o.NewName = "new"
	}
	o.FirstWait = inRange(o.FirstWait, defaultFirstWait, maxFirstWait)
	return o
}

// records is the Source of records. Only its goroutine uses the fields, except those of
// stateTable.
type records struct {
	stateTable
	sides    []*recordSide
	wait     time.Duration
	deadline time.Time        // when FirstWait is over; zero while no registry has answered
	ready    bool             // states are published
	ignored  map[string]State // the record that counts, where a state from before counts more
	most     int              // how many services may have a state
	full     bool             // the state of another service was left out
	problems problemLog

	wake   chan struct{} // capacity 1
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended
}

// recordSide is the records of one registry.
type recordSide struct {
	name     string
	client   *naming.Client
	follower *naming.Follower
	status   naming.Status
	states   map[string]State
	bad      map[string]error // records that cannot be used
}

// add begins to read the records of a registry.
func (r *records) add(name string, store naming.Store, log *slog.Logger) error {
	client := naming.New(store, &naming.Options{
		Logger:    log.With(slog.String("registry", name)),
		IdleGrace: -1,
		Hold:      naming.Hold{Disabled: true},
	})
	follower, err := client.Follow(RecordService, func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		client.Close()
		return err
	}
	r.sides = append(r.sides, &recordSide{name: name, client: client, follower: follower})
	return nil
}

// Close implements [Source].
func (r *records) Close() {
	r.cancel()
	<-r.done
	r.closeSides()
}

func (r *records) closeSides() {
	for _, s := range r.sides {
		s.follower.Close()
		s.client.Close()
	}
}

func (r *records) run(ctx context.Context) {
	defer close(r.done)
	for ctx.Err() == nil {
		var due <-chan time.Time
		if wait := r.step(); wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-r.wake:
		case <-due:
		case <-ctx.Done():
		}
	}
}

// step reads what is new and publishes the states. It returns the time after which step
// has to be called again even if nothing is new, or 0.
func (r *records) step() time.Duration {
	touched := make(map[string]struct{})
	for _, s := range r.sides {
		for e, ok := s.follower.Next(); ok; e, ok = s.follower.Next() {
			s.apply(e, touched)
		}
	}
	var wait time.Duration
	if !r.ready {
		if wait = r.becomeReady(); r.ready {
			for _, s := range r.sides {
				addKeys(touched, s.states)
			}
		}
	}
	if r.ready {
		r.publish(touched)
	}
	problem := r.recordProblem()
	r.setErr(r.failure(problem))
	if again := r.problems.update(problem); again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	return wait
}

// becomeReady sets ready if states may be published from now on. Otherwise it returns how
// long to wait, or 0 if no registry has answered.
func (r *records) becomeReady() time.Duration {
	synced := 0
	for _, s := range r.sides {
		if s.status.Synced {
			synced++
		}
	}
	if synced == 0 {
		return 0
	}
	if r.deadline.IsZero() {
		r.deadline = time.Now().Add(r.wait)
	}
	wait := time.Until(r.deadline)
	r.ready = synced == len(r.sides) || wait <= 0
	return max(wait, 0)
}

// publish updates the states of the services whose records changed.
func (r *records) publish(touched map[string]struct{}) {
	if len(touched) == 0 {
		return
	}
	r.update(func(states map[string]State) (map[string]State, bool) {
		if states == nil {
			states = make(map[string]State)
		}
		changed := false
		for service := range touched {
			changed = r.publishOne(states, service) || changed
		}
		return states, changed
	})
}

// publishOne updates the state of a service, and reports whether it changed.
func (r *records) publishOne(states map[string]State, service string) bool {
	best, found := r.best(service)
	kept, known := states[service]
	delete(r.ignored, service)
	switch {
	case !found:
		return false // a state outlives its records
	case known && kept == best:
		return false
	case known && !best.supersedes(kept):
		if r.ignored == nil {
			r.ignored = make(map[string]State)
		}
		r.ignored[service] = best
		return false
	case !known && len(states) >= r.most:
		r.full = true
		return false
	}
	states[service] = best
	return true
}

// best returns the state of a service that counts, of those in the registries.
func (r *records) best(service string) (best State, found bool) {
	for _, side := range r.sides {
		if s, ok := side.states[service]; ok && (!found || s.supersedes(best)) {
			best, found = s, true
		}
	}
	return best, found
}

// apply applies an event of the watch. It adds the names of the services whose records
// may have changed to touched.
func (s *recordSide) apply(e naming.Event, touched map[string]struct{}) {
	s.status = e.Status
	if e.Snapshot {
		addKeys(touched, s.states)
		s.states, s.bad = nil, nil
	}
	for _, id := range e.Deleted {
		delete(s.states, id)
		delete(s.bad, id)
		touched[id] = struct{}{}
	}
	for i := range e.Put {
		s.put(&e.Put[i], touched)
	}
	// A registry withholds the endpoints of an agent that it takes for dead. Records do
	// not depend on the agent that wrote them.
	for i := range e.Withheld {
		s.put(&e.Withheld[i].Endpoint, touched)
	}
}

// put replaces a record.
func (s *recordSide) put(e *naming.Endpoint, touched map[string]struct{}) {
	if !isRecord(e) {
		return
	}
	touched[e.ID] = struct{}{}
	delete(s.states, e.ID)
	delete(s.bad, e.ID)
	state, err := decodeRecord(e)
	if err != nil {
		if s.bad == nil {
			s.bad = make(map[string]error)
		}
		s.bad[e.ID] = err
		return
	}
	if s.states == nil {
		s.states = make(map[string]State)
	}
	s.states[e.ID] = state
}

// failure returns the result of Err: the registries that are not fresh, and the problem
// of the records.
func (r *records) failure(problem string) error {
	var list []error
	for _, s := range r.sides {
		switch {
		case s.status.Err != nil:
			list = append(list, fmt.Errorf("registry %s: %w", s.name, s.status.Err))
		case !s.status.Synced:
			list = append(list, fmt.Errorf("registry %s has not answered", s.name))
		}
	}
	if problem != "" {
		list = append(list, errors.New(problem))
	}
	if len(list) == 0 {
		return nil
	}
	err := list[0]
	for _, e := range list[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return naming.SafeError(fmt.Errorf("migrate: records: %w", err))
}

// recordProblem returns what is wrong with the records, or an empty text.
func (r *records) recordProblem() string {
	var parts []string
	for _, s := range r.sides {
		if len(s.bad) > 0 {
			id := firstKey(s.bad)
			parts = append(parts, fmt.Sprintf("registry %s: %d records cannot be used, such as that of service %.100q: %v",
				s.name, len(s.bad), id, naming.SafeError(s.bad[id])))
		}
	}
	if len(r.ignored) > 0 {
		id := firstKey(r.ignored)
		state, _ := r.State(id)
		parts = append(parts, fmt.Sprintf("%d records count less than the states that this program has read before, such as that of service %.100q: seq %d, and the state has seq %d",
			len(r.ignored), id, r.ignored[id].Seq, state.Seq))
	}
	if r.full {
		parts = append(parts, fmt.Sprintf("there are states of more than %d services", r.most))
	}
	return strings.Join(parts, "; ")
}

func addKeys[T any](set map[string]struct{}, m map[string]T) {
	for k := range m {
		set[k] = struct{}{}
	}
}

// firstKey returns the smallest key of a map that is not empty. So a text names the same
// record each time.
func firstKey[T any](m map[string]T) string { return slices.Min(slices.Collect(maps.Keys(m))) }

// problemLog logs a text when it changes, and limits how often. Another writer may change
// a record at any rate.
type problemLog struct {
	log    *slog.Logger
	logged string
	at     time.Time // when something was logged last
}

const problemEvery = 10 * time.Second

// update logs the text, unless it was logged last. It returns the time after which update
// has to be called again because it logged something just before, or 0.
func (p *problemLog) update(text string) time.Duration {
	if text == p.logged {
		return 0
	}
	if wait := problemEvery - time.Since(p.at); wait > 0 {
		return wait
	}
	p.logged, p.at = text, time.Now()
	if text == "" {
		p.log.Info("naming: all records of phases can be used again")
	} else {
		p.log.Warn("naming: some records of phases cannot be used, the last states remain", slog.String("err", text))
	}
	return 0
}
