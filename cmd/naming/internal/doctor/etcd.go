package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// Etcd is what is known of an etcd besides its store.
type Etcd struct {
	Client  *clientv3.Client
	Options etcd.Options
}

func (t *Etcd) examine(ctx context.Context, x *examination) {
	t.members(ctx, x)
	t.user(ctx, x)
	t.clock(ctx, x)
	t.leases(ctx, x)
}

// members asks each member that the URL names.
func (t *Etcd) members(ctx context.Context, x *examination) {
	endpoints := t.Client.Endpoints()
	for _, endpoint := range endpoints {
		s, err := t.status(ctx, x, endpoint)
		switch {
		case ctx.Err() != nil:
			return
		case permission(err):
			x.note("version", "", "etcd does not say its state to this user")
			return
		case err != nil:
			x.problem("members", "start the member, or take it out of the URL", "member %s does not answer: %v", naming.SafeText(endpoint), naming.SafeError(err))
			continue
		}
		reportMember(x, endpoint, s)
	}
	if len(endpoints) == 1 {
		t.advertised(ctx, x)
	}
}

func (t *Etcd) status(ctx context.Context, x *examination, endpoint string) (*clientv3.StatusResponse, error) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	return t.Client.Status(ctx, endpoint)
}

// fullSpace is the part of the quota from which on a database is reported. A full etcd
// refuses writes, also those that renew nothing but register a server again.
const fullSpace = 0.8

// defaultQuota is the quota of an etcd that does not say its own (before 3.6).
const defaultQuota = 2 << 30

func reportMember(x *examination, endpoint string, s *clientv3.StatusResponse) {
	x.ok("version", "etcd %s at %s", naming.SafeText(s.Version), naming.SafeText(endpoint))
	if s.Leader == 0 {
		x.problem("members", "start enough members for a majority", "member %s has no leader: nothing can be registered", naming.SafeText(endpoint))
	}
	if s.IsLearner {
		x.problem("members", "promote the learner, or take it out of the URL", "member %s is a learner and answers no reads", naming.SafeText(endpoint))
	}
	for _, e := range s.Errors {
		x.problem("members", "see etcd's documentation of alarms (etcdctl alarm list)", "member %s reports: %s", naming.SafeText(endpoint), naming.SafeText(e))
	}
	quota := s.DbSizeQuota
	if quota <= 0 {
		quota = defaultQuota
	}
	text := fmt.Sprintf("the database has %d MiB of %d MiB, %d MiB of them in use", s.DbSize>>20, quota>>20, s.DbSizeInUse>>20)
	if float64(s.DbSize) > fullSpace*float64(quota) {
		x.problem("limits", "compact the history and defragment, or raise --quota-backend-bytes: a full etcd refuses registrations", "%s", text)
		return
	}
	x.ok("limits", "%s", text)
}

// advertised reports that a cluster has more members than the URL names: a client knows only
// what the URL names.
func (t *Etcd) advertised(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	list, err := t.Client.MemberList(ctx)
	if err != nil || len(list.Members) <= 1 {
		return
	}
	x.note("members", "name further members in the URL (endpoint=host:port), so that clients survive the loss of this one",
		"the cluster has %d members, and the URL names one", len(list.Members))
}

// user reports with which rights the credentials come.
func (t *Etcd) user(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	s, err := t.Client.AuthStatus(ctx)
	switch {
	case err == nil && !s.Enabled && t.Client.Username == "":
		x.note("auth", "enable authentication if others can reach etcd", "authentication is off: everybody who reaches etcd can change every entry")
	case err == nil && !s.Enabled:
		x.note("auth", "", "authentication is off: the user of the URL has no effect")
	case t.Client.Username == "":
		x.ok("auth", "no user: etcd asks for none, or refuses below")
	default:
		x.ok("auth", "user %s", naming.SafeText(t.Client.Username))
	}
}

// skewed is the difference of the clocks from which on it is reported. Leases are durations
// and work with wrong clocks; logs and certificates do not.
const skewed = 5 * time.Second

// direct asks the member itself: a proxy has a clock of its own.
var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// clock compares the clock of a member with that of this machine. Only etcd's HTTP side says
// the time, and without TLS only, because the certificates of the URL are the client's.
func (t *Etcd) clock(ctx context.Context, x *examination) {
	endpoint := t.Client.Endpoints()[0]
	if !strings.HasPrefix(endpoint, "http://") {
		x.note("clock", "", "not compared: etcd says the time without TLS only")
		return
	}
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/version", nil)
	if err != nil {
		return
	}
	begin := time.Now()
	resp, err := direct.Do(req)
	if err != nil {
		x.note("clock", "", "not compared: the member does not serve HTTP: %v", naming.SafeError(err))
		return
	}
	_ = resp.Body.Close()
	if server, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		reportClock(x, server, begin, time.Second)
	}
}

// reportClock reports the difference of two clocks. The server said its time, with a
// resolution, between begin and now.
func reportClock(x *examination, server, begin time.Time, resolution time.Duration) {
	var off time.Duration
	switch now := time.Now(); {
	case server.After(now):
		off = server.Sub(now)
	case server.Add(resolution).Before(begin):
		off = begin.Sub(server.Add(resolution))
	}
	if off >= skewed {
		x.problem("clock", "set both clocks by NTP: logs cannot be compared, and certificates may count as expired", "the clocks of the registry and of this machine differ by %v", off.Round(time.Second))
		return
	}
	x.ok("clock", "the clock of the registry agrees with this machine's")
}

const (
	keyPage   = 2000    // keys in one answer
	maxKeys   = 1 << 20 // keys that are looked at
	maxLeases = 1000    // leases that are asked for
	longLease = time.Hour
)

// leases reports entries that outlive their program: under no lease, or under one that lasts
// long.
func (t *Etcd) leases(ctx context.Context, x *examination) {
	orphans, byLease, err := t.keys(ctx, x)
	if err != nil {
		return // rights and entries report it
	}
	if len(orphans) > 0 {
		x.note("orphans", "remove entries that no program wants: 'naming deregister SERVICE ID'",
			"%s under no lease, which stay when their program dies: %s", show.Count(len(orphans), "key"), some(orphans))
	}
	var long []string
	ids := sortedLeases(byLease)
	for _, id := range ids[:min(len(ids), maxLeases)] {
		granted, ok := t.granted(ctx, x, id)
		if ctx.Err() != nil {
			return
		}
		if ok && granted > longLease {
			long = append(long, fmt.Sprintf("%s (%v)", byLease[id], granted))
		}
	}
	if len(long) > 0 {
		x.note("orphans", "register with a shorter time to live", "%s under a lease that lasts longer than %v: %s", show.Count(len(long), "key"), longLease, some(long))
	}
}

// keys returns the keys under no lease, and one key of each lease.
func (t *Etcd) keys(ctx context.Context, x *examination) (orphans []string, byLease map[clientv3.LeaseID]string, err error) {
	prefix := t.prefix()
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		from, end = "\x00", "\x00"
	}
	byLease = make(map[clientv3.LeaseID]string)
	for seen := 0; seen < maxKeys; {
		page, err := t.page(ctx, x, from, end)
		if err != nil {
			return nil, nil, err
		}
		for _, kv := range page.Kvs {
			key := naming.SafeText(string(kv.Key))
			switch {
			case kv.Lease != 0:
				byLease[clientv3.LeaseID(kv.Lease)] = key
			case !strings.HasPrefix(string(kv.Key), prefix+"naming/"): // records of migrations stay
				orphans = append(orphans, key)
			}
			from = string(kv.Key) + "\x00"
		}
		if seen += len(page.Kvs); !page.More {
			break
		}
	}
	return orphans, byLease, nil
}

func (t *Etcd) page(ctx context.Context, x *examination, from, end string) (*clientv3.GetResponse, error) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	return t.Client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(keyPage), clientv3.WithSerializable())
}

// prefix returns the beginning of all keys of the store.
func (t *Etcd) prefix() string {
	prefix := t.Options.Prefix
	if t.Options.Codec != nil {
		prefix += t.Options.Codec.Root
	}
	return prefix
}

// granted returns the time to live with which a lease was granted.
func (t *Etcd) granted(ctx context.Context, x *examination, id clientv3.LeaseID) (time.Duration, bool) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	r, err := t.Client.TimeToLive(ctx, id)
	if err != nil || r.TTL <= 0 {
		return 0, false
	}
	return time.Duration(r.GrantedTTL) * time.Second, true
}

func sortedLeases(byLease map[clientv3.LeaseID]string) []clientv3.LeaseID {
	ids := make([]clientv3.LeaseID, 0, len(byLease))
	for id := range byLease {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// permission reports whether etcd refused a request for lack of a right.
func permission(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken)
}
