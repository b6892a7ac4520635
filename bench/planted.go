package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// plant is a change that makes the library slower. In file, old is replaced by new.
type plant struct {
	name           string // what is added to the peer's name
	file, old, new string
}

// plants show that the bench sees such changes.
var plants = []plant{{
	name: "+sleep", // 1 ms before the readers of a service are woken
	file: "watch.go",
	old:  "	wakes, err := s.update(b, first, begun)\n",
	new:  "	wakes, err := s.update(b, first, begun)\n	time.Sleep(time.Millisecond)\n",
}, {
	name: "+copy", // a copy of the set at each change
	file: "set.go",
	old:  "	changes := make([]change, 0, len(b.Deleted)+len(b.Put)+len(b.Withheld))\n",
	new:  "	s.entries = maps.Clone(s.entries)\n	changes := make([]change, 0, len(b.Deleted)+len(b.Put)+len(b.Withheld))\n",
}}

// apply returns the changed text of the file, below root.
func (p plant) apply(root string) (string, error) {
	src, err := os.ReadFile(filepath.Join(root, p.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(src), p.old); n != 1 {
		return "", fmt.Errorf("%s: %s has its place %d times, want once", p.name, p.file, n)
	}
	return strings.Replace(string(src), p.old, p.new, 1), nil
}

// build builds this program with the change, and returns its path in dir.
func (p plant) build(ctx context.Context, root, dir string) (string, error) {
	src, err := p.apply(root)
	if err != nil {
		return "", err
	}
	changed, overlay, exe := filepath.Join(dir, p.name+".go"), filepath.Join(dir, p.name+".json"), filepath.Join(dir, "bench"+p.name)
	list, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, p.file): changed}})
	if err != nil {
		return "", err
	}
	for name, text := range map[string][]byte{changed: []byte(src), overlay: list} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", exe, ".")
	cmd.Dir = filepath.Join(root, "bench")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %v: %s", p.name, err, out)
	}
	return exe, nil
}
