package doortest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// Page is the page that has the tables of all frameworks, below the root of the module.
const Page = "docs/frameworks.md"

// CompareOnEtcd is [Compare] on a real etcd. With NAMING_UPDATE=1 it writes the table of a
// framework into [Page], between two lines that name the framework. Otherwise the page must
// have a table of the framework with the same doors.
func CompareOnEtcd(t *testing.T, framework string, theirs, ours Door, opts Options) {
	t.Helper()
	if os.Getenv("NAMING_FULL") != "" && opts.Rounds == 0 {
		opts.Rounds = 5
	}
	c := etcdtest.Start(t, nil)
	down := func(tb testing.TB) { c.Kill(tb) }
	rows := Compare(t, Etcd{
		Endpoints: c.Endpoints(),
		Down:      down,
		Up:        func(tb testing.TB) { c.Restart(tb) },
		Empty:     func(tb testing.TB) { c.Wipe(tb) },
	}, theirs, ours, opts)
	table := Table(theirs.Name, ours.Name, rows)
	t.Logf("\n%s", table)
	if t.Failed() {
		return
	}
	path := filepath.Join(servertest.Root(t), Page)
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, old, after, err := section(string(page), framework)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(table, "\n")
	switch {
	case os.Getenv("NAMING_UPDATE") != "":
		if err := os.WriteFile(path, []byte(before+table+after), 0o666); err != nil {
			t.Fatal(err)
		}
	case !strings.HasPrefix(old, head+"\n"):
		t.Errorf("%s has no table of %s and %s; NAMING_UPDATE=1 writes it", Page, theirs.Name, ours.Name)
	}
}

// section cuts a page at the table of a framework.
func section(page, framework string) (before, table, after string, err error) {
	begin, end := fmt.Sprintf("<!-- begin %s -->\n", framework), fmt.Sprintf("<!-- end %s -->\n", framework)
	i, j := strings.Index(page, begin), strings.Index(page, end)
	if i < 0 || j < i {
		return "", "", "", fmt.Errorf("%s has no lines %q and %q", Page, begin, end)
	}
	i += len(begin)
	return page[:i], page[i:j], page[j:], nil
}
