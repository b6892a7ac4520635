package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// Flag is the only argument of a process that has to call Serve.
const Flag = "-child"

// Child is a running child, as its parent sees it. It is not for concurrent use.
type Child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan Reply
	ended   error // why replies is closed
	log     tail
}

// Start starts the program exe as a child and opens a peer in it.
func Start(exe, name string, s peer.Servers) (*Child, error) {
	c := &Child{cmd: exec.Command(exe, Flag), replies: make(chan Reply)}
	c.cmd.Stderr = &c.log
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.replies)
		dec := json.NewDecoder(out)
		for {
			var r Reply
			if err := dec.Decode(&r); err != nil {
				_, _ = io.Copy(io.Discard, out)
				c.ended = c.cmd.Wait()
				return
			}
			c.replies <- r
		}
	}()
	_, err = c.Do(Request{Do: Open, Peer: name, Servers: s})
	if err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// Do sends a request to the child and returns the reply. A reply may come with an error.
func (c *Child) Do(req Request) (Reply, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return Reply{}, err
	}
	if _, err := c.in.Write(append(b, '\n')); err != nil {
		return Reply{}, c.death(err)
	}
	limit := req.Timeout
	if limit <= 0 {
		limit = time.Minute
	}
	// The child keeps the limit itself, unless the peer blocks it.
	ctx, cancel := context.WithTimeout(context.Background(), limit+30*time.Second)
	defer cancel()
	select {
	case r, ok := <-c.replies:
		switch {
		case !ok:
			return Reply{}, c.death(errors.New("the process ended"))
		case r.Unsupported:
			return r, fmt.Errorf("%s: %w", req.Do, errors.ErrUnsupported)
		case r.Err != "":
			return r, fmt.Errorf("%s: %s", req.Do, r.Err)
		}
		return r, nil
	case <-ctx.Done():
		c.Kill()
		return Reply{}, fmt.Errorf("%s: no reply after %v", req.Do, limit)
	}
}

// death returns the reason why there is no reply.
func (c *Child) death(err error) error {
	for range c.replies {
	}
	if c.ended != nil {
		err = c.ended
	}
	for line := range strings.Lines(string(c.log)) {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return err
}

// Kill ends the child.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	for range c.replies {
	}
	c.in.Close()
}

// tail keeps the beginning of a child's output, and the first line of a panic.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	const enough = 64 << 10
	if i := bytes.Index(b, []byte("panic:")); i >= 0 && len(*t) >= enough {
		*t = append(*t, b[i:min(len(b), i+200)]...)
	}
	if room := enough - len(*t); room > 0 {
		*t = append(*t, b[:min(len(b), room)]...)
	}
	return len(b), nil
}
