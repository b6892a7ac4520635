package steer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/migrate"
)

// need looks whether one condition holds.
type need func(j Judge, o *Observation, to migrate.State) Condition

// answers: both registries can be read.
func answers(_ Judge, o *Observation, _ migrate.State) Condition {
	c := Condition{Name: "answers", Why: "both registries answer", passing: true}
	var bad []string
	for _, side := range []struct {
		name string
		side *Side
	}{{"old", &o.Old}, {"new", &o.New}} {
		switch {
		case side.side.Err != nil:
			bad = append(bad, fmt.Sprintf("the %s registry cannot be read: %v", side.name, naming.SafeError(side.side.Err)))
		case side.side.RecordErr != nil:
			bad = append(bad, fmt.Sprintf("the records of the %s registry cannot be read: %v", side.name, naming.SafeError(side.side.RecordErr)))
		}
	}
	if c.Holds = len(bad) == 0; !c.Holds {
		c.Why = strings.Join(bad, "; ")
		c.Opens = "repair the registry"
		if o.Old.unread() {
			c.Opens += ". If the old registry never comes back, go on with --force"
		}
		if o.New.unread() {
			c.Opens += ". While the new registry is away, go back to union or a lower phase: a server that starts is ready there"
		}
	}
	return c
}

// records: both registries have the same usable record.
func records(_ Judge, o *Observation, _ migrate.State) Condition {
	c := Condition{Name: "records", Holds: true, Why: "both registries have the same record"}
	record := AllServices
	if o.Own || o.Old.Malformed != nil || o.New.Malformed != nil {
		record = o.Service
	}
	again := "write the record: naming migrate back --to PHASE --service " + Word(record)
	if o.Known {
		again = fmt.Sprintf("write the record again: naming migrate back --service %s --to %s", Word(record), PositionOf(o.State, true).Phase)
	}
	switch {
	case o.Old.RecordErr != nil || o.New.RecordErr != nil:
		c.Holds, c.passing = false, true
		c.Why, c.Opens = "the records of a registry were not read: the registry may have another phase", "repair the registry"
	case o.Old.Malformed != nil:
		c.Holds, c.Why, c.Opens = false, "the record of the old registry cannot be used: "+o.Old.Malformed.Error(), again
	case o.New.Malformed != nil:
		c.Holds, c.Why, c.Opens = false, "the record of the new registry cannot be used: "+o.New.Malformed.Error(), again
	case o.RecordsDiffer():
		c.Holds, c.Opens = false, again
		c.Why = fmt.Sprintf("the registries have different records: old %s, new %s", recordText(&o.Old), recordText(&o.New))
	case !o.Known:
		c.Why = "neither registry has a record"
	case o.Old.NoRecords || o.New.NoRecords:
		c.Why = "one registry has the record, and the other one cannot be written"
	}
	return c
}

func recordText(s *Side) string {
	if !s.HasRecord {
		return "none"
	}
	return fmt.Sprintf("%s (seq %d)", PositionOf(s.Record, true), s.Record.Seq)
}

// endpoints: the service exists.
func endpoints(_ Judge, o *Observation, _ migrate.State) Condition {
	n := o.Report.OldCount + o.Report.NewCount
	c := Condition{Name: "endpoints", Holds: n > 0 || !o.Report.Known, Why: fmt.Sprintf("the old registry has %s, and the new one has %d", show.Count(o.Report.OldCount, "endpoint"), o.Report.NewCount)}
	switch {
	case !o.Report.Known:
		c.Why = "a registry was not read"
	case n == 0:
		c.Why = "no registry has an endpoint of the service"
		c.Opens = "look at the name of the service, or start its servers"
		if o.Own {
			c.Opens += ", or delete the record from both registries: naming deregister " + migrate.RecordService + " " + Word(o.Service)
		}
	}
	return c
}

// apart: programs that have not heard of the step yet are at most three phases behind.
func apart(_ Judge, o *Observation, to migrate.State) Condition {
	from := migrate.Old
	if o.Known {
		from = o.State.Phase
	}
	c := Condition{Name: "apart", Holds: to.Phase <= from+maxApart, Why: "the step crosses " + show.Count(int(to.Phase)-int(from), "phase")}
	if !c.Holds {
		c.Why += fmt.Sprintf(", and programs are safe together within %d", maxApart)
		c.Opens = fmt.Sprintf("go to %v first, and wait until all programs have that phase", from+maxApart)
	}
	return c
}

// format: the new registry keeps all that servers announce.
func format(j Judge, o *Observation, _ migrate.State) Condition {
	c := Condition{Name: "format", Holds: true, Why: "the format of the new registry keeps all endpoints"}
	if o.LossErr != nil {
		c.Holds, c.Why = false, "what the format of the new registry loses is not known: "+o.LossErr.Error()
		c.Opens = "compare the formats by hand, and go on with --force"
		return c
	}
	open := Unaccepted(o.Losses, j.Accept)
	switch {
	case len(open) > 0:
		c.Holds, c.Why = false, fmt.Sprintf("not accepted: %s; the first: %s", show.Count(len(open), "loss"), open[0].String())
		c.Opens = "change what the servers announce"
		if fields := lostFields(open); len(fields) > 0 {
			c.Opens += ", or accept the loss: --accept " + strings.Join(fields, ",")
		}
	case len(o.Losses) > 0:
		c.Why = "accepted: " + show.Count(len(o.Losses), "loss")
	}
	return c
}

// Unaccepted returns the losses that an operator has not accepted.
func Unaccepted(losses []migrate.Loss, a migrate.Accept) []migrate.Loss {
	return slices.DeleteFunc(slices.Clone(losses), func(l migrate.Loss) bool { return l.Accepted(a) })
}

// lostFields returns the names of what is lost, sorted.
func lostFields(losses []migrate.Loss) (fields []string) {
	for _, l := range losses {
		if l.Err == nil {
			fields = append(fields, l.Fields...)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

const (
	opensMissing  = "look why the servers at these addresses do not register in the new registry: they have not joined, are in another phase, or are refused. Run 'naming migrate bridge' for servers that cannot be upgraded"
	opensMismatch = "repair the writer, or accept what differs with --accept"
)

// registered: every server is in the new registry, if only as a copy.
func registered(_ Judge, o *Observation, _ migrate.State) Condition {
	c := known(o, "registered")
	if c.Holds && len(o.Report.Missing) > 0 {
		c.Holds, c.Why, c.Opens = false, missingText(o), opensMissing
	}
	return c
}

// parity: the registries have the same endpoints with the same data.
func parity(_ Judge, o *Observation, _ migrate.State) Condition {
	c := known(o, "parity")
	switch r := o.Report; {
	case !c.Holds:
	case len(r.Missing) > 0:
		c.Holds, c.Why, c.Opens = false, missingText(o), opensMissing
	case len(r.Mismatch) > 0:
		m := r.Mismatch[0]
		c.Holds, c.Opens = false, opensMismatch
		c.Why = fmt.Sprintf("different data: %s; the first: %s differs in %s", show.Count(len(r.Mismatch), "endpoint"), m.Old.Addr, strings.Join(m.Fields, ", "))
	}
	return c
}

// coverage: the new registry has every live address, so that no reader falls back.
func coverage(_ Judge, o *Observation, _ migrate.State) Condition {
	c := known(o, "coverage")
	if c.Holds && len(o.Report.Missing) > 0 {
		c.Holds, c.Why = false, missingText(o)
		c.Opens = "readers use both registries meanwhile, and no call fails: " + opensMissing
	}
	return c
}

// known begins a condition that needs a comparison.
func known(o *Observation, name string) Condition {
	c := Condition{Name: name, Holds: true, passing: true, Why: fmt.Sprintf("the new registry has all of %s", show.Count(o.Report.OldCount, "endpoint"))}
	switch r := o.Report; {
	case !r.Known:
		c.Holds, c.Why, c.Opens = false, "a registry was not read", "repair the registry"
	case r.OldStale || r.NewStale:
		c.Holds, c.Why, c.Opens = false, "a registry does not vouch for its endpoints", "repair the registry"
	}
	return c
}

// missingText names the endpoints that the new registry does not have.
func missingText(o *Observation) string {
	var addrs []string
	for _, e := range o.Report.Missing {
		if len(addrs) == 3 {
			addrs = append(addrs, "...")
			break
		}
		addrs = append(addrs, e.Addr)
	}
	return fmt.Sprintf("the new registry lacks %d of %s: %s", len(o.Report.Missing), show.Count(o.Report.OldCount, "endpoint"), strings.Join(addrs, ", "))
}

// natives: servers are in the new registry by themselves, as copies end with the bridge.
func natives(_ Judge, o *Observation, _ migrate.State) Condition {
	n := len(o.Report.Copies)
	c := known(o, "natives")
	switch {
	case c.Holds && n == 0:
		c.Why = "no endpoint depends on a bridge"
	case c.Holds:
		c.Holds = false
		c.Why = fmt.Sprintf("the new registry has %s only as copies of a bridge, such as %s", show.Count(n, "endpoint"), o.Report.Copies[0].Addr)
		c.Opens = "upgrade these servers, so that they register themselves"
	}
	return c
}

// fullShare: all clients prefer the new registry.
func fullShare(_ Judge, o *Observation, _ migrate.State) Condition {
	c := Condition{Name: "share", Why: "all clients prefer the new registry"}
	c.Holds = o.Known && (o.State.Phase > migrate.PreferNew || o.State.Phase == migrate.PreferNew && o.State.Share == 1)
	if !c.Holds {
		c.Why = "not all clients have tried the new registry"
		c.Opens = "raise the share to 1: naming migrate advance --share 1"
	}
	return c
}

// readers: a person says that no reader of the old registry is left.
func readers(j Judge, _ *Observation, _ migrate.State) Condition {
	c := Condition{Name: Readers, Human: true, Holds: slices.Contains(j.Confirmed, Readers), Why: "a person has confirmed that no program reads the old registry alone"}
	if !c.Holds {
		c.Why = "whether a program still reads the old registry alone cannot be seen from here"
		c.Opens = "look at the old registry's own connections and at the metrics of the programs. Then say so: --confirm " + Readers
	}
	return c
}

// oldEmpty: all servers have left the old registry.
func oldEmpty(_ Judge, o *Observation, _ migrate.State) Condition {
	n := o.Report.OldCount - len(o.Report.OldCopies)
	c := Condition{Name: "left", Holds: o.Report.Known && n <= 0, passing: true, Why: "no server is registered in the old registry"}
	switch {
	case !o.Report.Known:
		c.Why, c.Opens = "a registry was not read", "repair the registry"
	case n > 0:
		c.Why = "the old registry has " + show.Count(n, "endpoint")
		c.Opens = "wait until the servers have left. A server that stays has not joined, or has another phase"
	}
	return c
}

// swept: the copies of bridges are gone.
func swept(_ Judge, o *Observation, _ migrate.State) Condition {
	n := copies(Present(o.Old.View)) + copies(Present(o.New.View))
	c := Condition{Name: "swept", Holds: o.Report.Known && n == 0, passing: true, Why: "no copies of a bridge are left"}
	switch {
	case !o.Report.Known:
		c.Why, c.Opens = "a registry was not read", "repair the registry"
	case n > 0:
		c.Why = "copies of a bridge that are left: " + strconv.Itoa(n)
		c.Opens = "stop the bridges, and run 'naming migrate sweep'"
	}
	return c
}

// copies returns how many endpoints are copies of a bridge.
func copies(endpoints []naming.Endpoint) (n int) {
	for _, e := range endpoints {
		if _, isCopy := migrate.Native(e); isCopy {
			n++
		}
	}
	return n
}

// Present returns all endpoints of a view, also those that are withheld.
func Present(v naming.View) []naming.Endpoint {
	list := slices.Clone(v.Endpoints)
	for _, w := range v.Withheld {
		list = append(list, w.Endpoint)
	}
	return list
}

// plainWord are names that a shell takes as they are.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./-]*$`)

// Word returns a text of a registry as one word of a command, for an operator who pastes the
// command. The word is safe to print.
func Word(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(naming.SafeText(s), "'", `'\''`) + "'"
}
