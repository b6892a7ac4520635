package migrate

// noSide says that no registry is meant.
const noSide sideIndex = -1

// plan is what a phase means for the endpoint of a server.
type plan struct {
	// written says which registries the endpoint is to be in.
	written [2]bool
	// counting is the registry whose registration decides the status of the whole. It is
	// noSide if the phase has the endpoint only in a registry that is read-only: the
	// endpoint is then not registered by this program, and nothing is waited for.
	counting sideIndex
	// seq is the number of the change that made the state.
	seq uint64
}

// planOf returns the plan of a state. An invalid state is treated as an unknown one. A
// registry that is read-only is never written and never counts.
func planOf(s State, known bool, readOnly [2]bool) plan {
	p := plan{written: [2]bool{true, true}, counting: oldSide}
	if known && s.Valid() == nil {
		p.counting, p.seq = s.Phase.counts(), s.Seq
		for i := range p.written {
			p.written[i] = s.Phase.writes(sideIndex(i))
		}
	}
	for i, ro := range readOnly {
		p.written[i] = p.written[i] && !ro
	}
	if readOnly[p.counting] {
		p.counting = p.counting.other()
	}
	if !p.written[p.counting] {
		p.counting = noSide
	}
	return p
}
