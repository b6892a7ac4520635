package tui

import (
	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/key"
	"charm.land/lipgloss/v2"
)

// keys are the keys of the tables. It is a KeyMap of package help.
type keys struct {
	up, down, pageUp, pageDown, home, end  key.Binding
	open, back, filter, reverse            key.Binding
	help, quit, interrupt, suspend, sorted key.Binding
	sort                                   map[Key]key.Binding
	endpoints                              bool // the table of naming watch, which has no other
	detail                                 bool // the endpoints of a service are shown
}

func bind(help, what string, names ...string) key.Binding {
	return key.NewBinding(key.WithKeys(names...), key.WithHelp(help, what))
}

func newKeys(endpoints bool) keys {
	return keys{
		up: bind("up/k", "up", "up", "k"), down: bind("down/j", "down", "down", "j"),
		pageUp: bind("pgup", "page up", "pgup", "ctrl+b"), pageDown: bind("pgdn", "page down", "pgdown", "ctrl+f", "space"),
		home: bind("g", "first", "home", "g"), end: bind("G", "last", "end", "G"),
		open: bind("enter", "endpoints", "enter", "right"), back: bind("esc", "back", "esc", "left", "backspace"),
		filter: bind("/", "filter", "/"), reverse: bind("r", "reverse", "r"),
		help: bind("?", "help", "?"), quit: bind("q", "quit", "q"),
		interrupt: bind("ctrl+c", "quit", "ctrl+c"), suspend: bind("ctrl+z", "suspend", "ctrl+z"),
		sorted: bind("n s c a t w h", "sort", "n"),
		sort: map[Key]key.Binding{
			ByName: bind("n", "by name", "n"), BySize: bind("s", "by size", "s"), ByChurn: bind("c", "by churn", "c"),
			ByAge: bind("a", "by age of the last change", "a"), ByStale: bind("t", "by staleness", "t"),
			ByWithheld: bind("w", "by withheld", "w"), ByHeld: bind("h", "by held", "h"),
		},
		endpoints: endpoints,
	}
}

// ShortHelp returns the keys of the help line.
func (k keys) ShortHelp() []key.Binding {
	switch {
	case k.endpoints:
		return []key.Binding{k.down, k.up, k.filter, k.help, k.quit}
	case k.detail:
		return []key.Binding{k.back, k.down, k.up, k.filter, k.help, k.quit}
	}
	return []key.Binding{k.open, k.filter, k.sorted, k.reverse, k.help, k.quit}
}

// FullHelp returns all keys, in columns that fit into 80 cells.
func (k keys) FullHelp() [][]key.Binding {
	moves := []key.Binding{k.up, k.down, k.pageUp, k.pageDown}
	if k.endpoints {
		return [][]key.Binding{moves, {k.home, k.end, k.filter, k.back}, {k.suspend, k.help, k.quit}}
	}
	return [][]key.Binding{
		append(moves, k.home, k.end, k.open, k.back),
		{k.sort[ByName], k.sort[BySize], k.sort[ByChurn], k.sort[ByAge], k.sort[ByStale], k.sort[ByWithheld], k.sort[ByHeld], k.reverse},
		{k.filter, k.suspend, k.help, k.quit},
	}
}

// helpStyles returns styles without colours.
func helpStyles() help.Styles {
	bold, faint := lipgloss.NewStyle().Bold(true), lipgloss.NewStyle().Faint(true)
	return help.Styles{
		Ellipsis: faint, ShortKey: bold, ShortDesc: faint, ShortSeparator: faint,
		FullKey: bold, FullDesc: faint, FullSeparator: faint,
	}
}
