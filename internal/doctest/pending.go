package doctest

import (
	"os"
	"path/filepath"
	"strings"
)

// pending are packages that the documentation names already and that the tree may not
// have yet, as what they will contain.
var pending = map[string]string{
	"backend/consul/consulcodec": `package consulcodec

import "github.com/naming-go/naming/backend/consul"

var Kratos, GoMicro, GRPCSpring = consul.Kratos, consul.GoMicro, consul.GRPCSpring
`,
}

// addPending adds the pending packages that the tree does not have to the overlay.
func (p *program) addPending() error {
	for dir, source := range pending {
		if _, err := os.Stat(filepath.Join(p.root, dir)); err == nil {
			continue
		}
		file := filepath.Join(p.tmp, filepath.Base(dir)+".go")
		if err := os.WriteFile(file, []byte(source), 0o666); err != nil {
			return err
		}
		p.replace[filepath.Join(p.root, dir, "pending.go")] = file
	}
	return nil
}

// missing reports whether a file imports the module observe/prometheus and the tree does
// not have it.
func missing(source string) bool {
	const dir = "observe/prometheus"
	_, err := os.Stat(filepath.Join("..", "..", dir))
	return err != nil && strings.Contains(source, module+"/"+dir)
}
