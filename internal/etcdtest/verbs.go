package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/internal/servertest"
)

// ListLeases returns the ids of all leases.
func (c *Cluster) ListLeases(tb testing.TB) []clientv3.LeaseID {
	tb.Helper()
	var ids []clientv3.LeaseID
	c.admin(tb, "list leases", func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Leases(ctx)
		if err != nil {
			return err
		}
		for _, l := range resp.Leases {
			ids = append(ids, l.ID)
		}
		return nil
	})
	return ids
}

// RevokeLease revokes a lease, as an operator may.
func (c *Cluster) RevokeLease(tb testing.TB, id clientv3.LeaseID) {
	tb.Helper()
	c.admin(tb, "revoke lease", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Revoke(ctx, id)
		return err
	})
}

// Leader returns the leader. It waits until all members that are up agree on it.
func (c *Cluster) Leader(tb testing.TB) *Member {
	tb.Helper()
	leader, _ := c.leader(tb, nil)
	return leader
}

// leader waits until the members that are up agree on a leader. If want is not nil,
// the leader must be want. leader returns it with the ids of the members that are
// up.
func (c *Cluster) leader(tb testing.TB, want *Member) (*Member, map[*Member]uint64) {
	tb.Helper()
	var leader *Member
	ids := make(map[*Member]uint64)
	servertest.Poll(tb, "no leader", func() error {
		clear(ids)
		of := make(map[*Member]uint64)
		for _, m := range c.up() {
			status, err := c.status(m)
			if err != nil {
				return err
			}
			ids[m], of[m] = status.Header.MemberId, status.Leader
		}
		leader = nil
		for m, id := range ids {
			if id == of[m] {
				leader = m
			}
		}
		if leader == nil {
			return errors.New("the leader is not among the members that are up")
		}
		for m, l := range of {
			if l != ids[leader] {
				return fmt.Errorf("%s does not follow %s", m.Name, leader.Name)
			}
		}
		if want != nil && want != leader {
			return fmt.Errorf("the leader is %s, want %s", leader.Name, want.Name)
		}
		return nil
	})
	return leader, ids
}

func (c *Cluster) status(m *Member) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client, err := clientv3.New(c.adminConfig(m.Endpoint()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Status(ctx, m.Endpoint())
}

// AddLearner adds a member that does not vote, starts it and returns it. The member
// stays a learner.
func (c *Cluster) AddLearner(tb testing.TB) *Member {
	tb.Helper()
	path, _ := find(tb, Pinned)
	ports := servertest.Ports(tb, 2)
	name := fmt.Sprintf("etcd%d", len(c.Members))
	m := &Member{
		Name: name, Addr: servertest.Addr(ports[0]), cluster: c,
		peer: "http://" + servertest.Addr(ports[1]), data: filepath.Join(tb.TempDir(), name),
	}
	c.admin(tb, "add learner", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberAddAsLearner(ctx, []string{m.peer})
		return err
	})
	c.Members = append(c.Members, m)
	args := c.flags(m, &Options{}, "")
	for i, arg := range args {
		if arg == "new" {
			args[i] = "existing"
		}
	}
	m.Process = servertest.NewProcess(tb, m.Name, servertest.Command{
		Path: path, Args: args,
		Healthy: func() error {
			status, err := c.status(m)
			if err == nil && !status.IsLearner {
				err = errors.New("the member is not a learner")
			}
			return err
		},
		Serving: m.serving,
	})
	servertest.StartAll(tb, []*servertest.Process{m.Process})
	return m
}

// MoveLeader makes another member the leader, and returns that member. At least two
// members must be up.
func (c *Cluster) MoveLeader(tb testing.TB) *Member {
	tb.Helper()
	old, ids := c.leader(tb, nil)
	var next *Member
	// The order of the members decides, so that a test can be repeated.
	for _, m := range c.Members {
		if _, up := ids[m]; up && m != old {
			next = m
			break
		}
	}
	if next == nil {
		tb.Fatal("move leader: no other member is up")
	}
	c.admin(tb, "move leader", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MoveLeader(ctx, ids[next])
		return err
	}, old.Endpoint())
	c.leader(tb, next)
	return next
}

// User is a user of etcd.
type User struct {
	Name, Password string
	// Prefix is the prefix of the keys that the user may read and write.
	Prefix string
}

// EnableAuth makes etcd require authentication, until a Wipe. etcd then refuses the
// clients that [Cluster.Client] returned before. Later clients are root's.
//
// Clients get a token for their password. A token expires when it was not used for
// [Options.TokenTTL], when the server restarts, and when a user or a role changes.
func (c *Cluster) EnableAuth(tb testing.TB, users ...User) {
	tb.Helper()
	const root = "root" // etcd requires a user and a role of this name.
	c.admin(tb, "enable auth", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.RoleAdd(ctx, root)
		if err == nil {
			_, err = client.UserAdd(ctx, root, root)
		}
		if err == nil {
			_, err = client.UserGrantRole(ctx, root, root)
		}
		for _, u := range users {
			if err == nil {
				_, err = client.RoleAdd(ctx, u.Name)
			}
			if err == nil {
				_, err = client.RoleGrantPermission(ctx, u.Name, u.Prefix, clientv3.GetPrefixRangeEnd(u.Prefix),
					clientv3.PermissionType(clientv3.PermReadWrite))
			}
			if err == nil {
				_, err = client.UserAdd(ctx, u.Name, u.Password)
			}
			if err == nil {
				_, err = client.UserGrantRole(ctx, u.Name, u.Name)
			}
		}
		if err == nil {
			_, err = client.AuthEnable(ctx)
		}
		return err
	})
	c.user, c.pass = root, root
}

// Deny takes all rights from a user. The user can still log in.
func (c *Cluster) Deny(tb testing.TB, user string) {
	tb.Helper()
	c.admin(tb, "deny", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.UserRevokeRole(ctx, user, user)
		return err
	})
}

// Allow gives a user the rights back that Deny took.
func (c *Cluster) Allow(tb testing.TB, user string) {
	tb.Helper()
	c.admin(tb, "allow", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.UserGrantRole(ctx, user, user)
		return err
	})
}

// SetPassword changes the password of a user.
func (c *Cluster) SetPassword(tb testing.TB, user, password string) {
	tb.Helper()
	c.admin(tb, "set password", func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.UserChangePassword(ctx, user, password)
		return err
	})
}

// RotateCertificate gives the servers a new certificate that is valid for the given
// time. If the time is not positive, the certificate has expired. Open connections
// stay open.
func (c *Cluster) RotateCertificate(tb testing.TB, valid time.Duration) {
	tb.Helper()
	if c.ca == nil {
		tb.Fatal("rotate certificate: the servers do not use TLS")
	}
	// Certificate and key are in one file. etcd reads the file at every handshake,
	// and must never read a key that does not match the certificate.
	servertest.WriteFile(tb, c.certFile, c.ca.Issue(tb, "server", valid))
}
