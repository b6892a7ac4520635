package cli

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/naming-go/naming/cmd/naming/internal/doctor"
	"github.com/naming-go/naming/cmd/naming/internal/drill"
	"github.com/naming-go/naming/cmd/naming/internal/measure"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
)

// TestDocuments: docs/command.md names exactly the fields of each document of --output, in the
// row of its command.
func TestDocuments(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/command.md")
	if err != nil {
		t.Fatal(err)
	}
	for row, doc := range map[string]any{
		"`ls --long`": counts{}, "`top`": topService{}, "`get`": show.Service{}, "`watch`": event{}, "`resolve`": resolved{},
		"`drain`, `resume`": markResult{}, "`diff`": difference{}, "`copy`": copyReport{},
		"`migrate status`": steer.Status{}, "`migrate plan`": servicePlan{}, "`migrate verify`": verification{},
		"`migrate advance`, `migrate back`": stepResult{}, "`migrate bridge`": bridgeEvent{},
		"`migrate bridge --dry-run`, `migrate sweep`": plan{}, "`migrate approve`": approved{}, "`migrate drill`": drill.Result{},
		"`check`": checkResult{}, "`doctor`": doctor.Finding{}, "`bench`": measure.Result{},
	} {
		line := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \|[^|]*\|(.*)\|$`).FindSubmatch(text)
		if line == nil {
			t.Errorf("docs/command.md has no row for %s", row)
			continue
		}
		// What stands in brackets are values, or fields of a part.
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(regexp.MustCompile(`\([^)]*\)|, each with.*`).ReplaceAllString(string(line[1]), ""), -1)
		var documented []string
		for _, m := range names {
			documented = append(documented, m[1])
		}
		if got := jsonFields(reflect.TypeOf(doc)); !reflect.DeepEqual(got, documented) {
			t.Errorf("docs/command.md, %s: the fields are %q, and not %q", row, got, documented)
		}
	}
	for _, doc := range []any{show.Endpoint{}, steer.Gate{}, steer.Condition{}} {
		for _, name := range jsonFields(reflect.TypeOf(doc)) {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/command.md does not name the field %s of %T", name, doc)
			}
		}
	}
}

// jsonFields returns the names of the fields of a document in their order.
func jsonFields(typ reflect.Type) (names []string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonFields(f.Type)...)
		case name != "" && f.IsExported():
			names = append(names, name)
		}
	}
	return names
}
