package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

const (
	// framePause is the time between two screens: at most 20 a second.
	framePause = 50 * time.Millisecond
	// ageStep is the time after which a screen without a change is drawn again, because ages
	// are on it.
	ageStep = time.Second
)

// Run shows services on the terminal until the user quits or ctx is done. Both return nil. It
// follows the named services, or all services of the registry without names. in and out are
// the terminal. Run restores the terminal before it returns.
//
// The error is one of [live.Run], or of the terminal.
func Run(ctx context.Context, c *naming.Client, services []string, in io.Reader, out io.Writer, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	board := NewBoard()
	program := tea.NewProgram(New(board, opts),
		tea.WithInput(in), tea.WithOutput(out), tea.WithFPS(int(time.Second/framePause)), tea.WithoutSignalHandler())
	followed := make(chan error, 1)
	go func() {
		err := live.Run(ctx, c, live.Options{Services: services, OnList: board.List, OnUpdate: board.Update})
		program.Quit() // also at the end of ctx
		followed <- err
	}()
	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		refreshAll(ctx, board, program)
	}()
	_, err := program.Run()
	cancel()
	<-refreshed
	if followErr := <-followed; !errors.Is(followErr, context.Canceled) {
		return followErr
	}
	if err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	return nil
}

// refreshAll has the program show the changes of a Board until ctx is done.
func refreshAll(ctx context.Context, b *Board, p *tea.Program) {
	tick := time.NewTicker(ageStep)
	defer tick.Stop()
	for {
		p.Send(refresh{time.Now()})
		pause := time.NewTimer(framePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-b.Changed():
		case <-tick.C:
		}
	}
}
