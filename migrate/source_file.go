package migrate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/naming-go/naming"
)

// MaxFile is the largest file of phases, in bytes.
const MaxFile = 1 << 20

// FileOptions are the options of [File]. The zero value and a nil pointer mean the
// defaults.
type FileOptions struct {
	// Logger gets a warning when the file cannot be used, once for each reason, and
	// an info when it can be used again. Nil means slog.Default().
	Logger *slog.Logger

	// Every is the interval at which the file is read. 0 means one second. It is at
	// least 100 ms and at most a minute. Readers and servers are safe together while
	// they are at most three phases apart: change a phase again when all programs
	// had time to read the file.
	Every time.Duration
}

const (
	defaultFileEvery = time.Second
	minFileEvery     = 100 * time.Millisecond
	maxFileEvery     = time.Minute
)

// File returns a Source that reads a file, which the caller closes. The file is JSON:
//
//	{"services": {
//		"*":       {"phase": "union"},
//		"greeter": {"phase": "prefer-new", "share": 0.1, "by": "ada"}
//	}}
//
// "*" is all services that are not in the file. The phase is the name or the number of a
// [Phase]. The phase prefer-new needs a share, and the other phases ignore it. "by" may
// be left out. A file that has anything else, a member twice, or a value out of range is
// refused as a whole, and Err says what is wrong. So is a file of more than [MaxFile]
// bytes, and one that is not a regular file. The last good states then remain. A service
// that was removed from the file has the state of "*" again. A state from a file has the
// Seq 0: the present content counts.
//
// File reads the file before it returns, and then at the interval of the options, in one
// goroutine. No state is known until the file could be used once. The path may be a
// symbolic link, and the file may be replaced by a rename, as Kubernetes replaces the
// files of a config map. Close waits for a read in progress.
func File(path string, opts *FileOptions) Source {
	var o FileOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Every == 0 {
		o.Every = defaultFileEvery
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &file{
		path: path, log: o.Logger, every: min(max(o.Every, minFileEvery), maxFileEvery),
		cancel: cancel, done: make(chan struct{}),
	}
	f.read()
	go f.run(ctx)
	return f
}

// file is the Source of a file.
type file struct {
	stateTable
	path   string
	log    *slog.Logger
	every  time.Duration
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended

	// Only the goroutine of run uses them, and File before it starts run.
	sum    [sha256.Size]byte // of the content that was parsed last
	parsed bool              // a content was parsed
	bad    error             // why that content was refused
	logged string            // the last error that was logged, and not followed by a success
}

// Close implements [Source].
func (f *file) Close() {
	f.cancel()
	<-f.done
}

func (f *file) run(ctx context.Context) {
	defer close(f.done)
	t := time.NewTicker(f.every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f.read()
		case <-ctx.Done():
			return
		}
	}
}

// read reads the file and uses its states. It compares contents, and no times: the clock
// of a file system may be too coarse to show two changes, and a file that replaces
// another one may have an older time.
func (f *file) read() {
	data, err := readRegular(f.path)
	if err == nil {
		if sum := sha256.Sum256(data); !f.parsed || sum != f.sum {
			f.parsed, f.sum = true, sum
			f.bad = f.use(data)
		}
		err = f.bad
	}
	if err != nil {
		err = naming.SafeError(fmt.Errorf("migrate: phases in file %s: %w", f.path, err))
	}
	f.setErr(err)
	f.report(err)
}

// use replaces the states by those in the content of a file.
func (f *file) use(data []byte) error {
	states, err := parseStates(data)
	if err == nil {
		f.replace(states)
	}
	return err
}

// report logs an error that differs from the last one, and the end of errors.
func (f *file) report(err error) {
	switch {
	case err == nil && f.logged != "":
		f.logged = ""
		f.log.Info("naming: phases can be read again", slog.String("file", f.path))
	case err != nil && f.logged != err.Error():
		f.logged = err.Error()
		f.log.Warn("naming: phases cannot be read, the last ones remain", slog.String("file", f.path), slog.Any("err", err))
	}
}

// readRegular returns the content of a regular file of at most MaxFile bytes. Before it
// opens the file it checks that the file is a regular one: to open a named pipe blocks.
func readRegular(path string) ([]byte, error) {
	if err := checkRegular(os.Stat(path)); err != nil {
		return nil, err
	}
	f, err := openFile(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	if err := checkRegular(f.Stat()); err != nil {
		return nil, err // another file is in its place since
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case len(data) > MaxFile:
		return nil, errFileSize
	}
	return data, nil
}

var errFileSize = fmt.Errorf("the file has more than %d bytes", MaxFile)

// checkRegular checks the result of a Stat.
func checkRegular(info os.FileInfo, err error) error {
	switch {
	case err != nil:
		return withoutPath(err)
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	}
	return nil
}

// withoutPath returns the cause of an error of a file, as the path is in the text that is
// put before it.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
