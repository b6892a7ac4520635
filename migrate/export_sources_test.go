package migrate

// Supersedes reports whether a counts, and not b.
func Supersedes(a, b State) bool { return a.supersedes(b) }

// ParseStates and ParseRecord are what the sources do with what comes from outside.
var (
	ParseStates = parseStates
	ParseRecord = parseRecord
)

// MaxRecord and MaxSeq are the limits of a record.
const (
	MaxRecord = maxRecord
	MaxSeq    = maxSeq
)

// PublishLimited publishes the records of two services in a source that holds the states
// of at most one, and returns how many states it has and what is wrong.
func PublishLimited() (states int, problem string) {
	r := &records{most: 1, sides: []*recordSide{{states: map[string]State{"a": {}, "b": {}}}}}
	r.publish(map[string]struct{}{"a": {}, "b": {}})
	return len(r.states), r.recordProblem()
}
