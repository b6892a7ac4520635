package migrate_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutantsOfSources plants typical bugs in the sources of phases, one at a time, and
// expects a test to fail for each.
func TestMutantsOfSources(t *testing.T) { mutant.Run(t, ".", 3, mutantsOfSources) }

var mutantsOfSources = []mutant.Mutant{
	{
		Name: "takes an unknown state for the phase Old",
		File: "source.go",
		Old:  "		s, ok = t.states[anyService]\n",
		New:  "		s, ok = t.states[anyService], true\n",
		Test: "TestRecords$|TestSettable$|TestFileBad",
	}, {
		Name: "accepts a lower seq",
		File: "source_records.go",
		Old:  "	case known && !best.supersedes(kept):\n",
		New:  "	case known && best.Seq == kept.Seq && !best.supersedes(kept):\n",
		Test: "TestRecordsSeq",
	}, {
		Name: "writes a record to one registry only",
		File: "source_write.go",
		Old:  "	wg.Go(func() { nextErr = putRecord(ctx, next, e) })\n",
		New:  "	wg.Go(func() { nextErr = nil })\n",
		Test: "TestWriteRecord$",
	}, {
		Name: "uses the record of the registry that answers first",
		File: "source_records.go",
		Old:  "	r.ready = synced == len(r.sides) || wait <= 0\n",
		New:  "	r.ready = true\n",
		Test: "TestRecordsStart",
	}, {
		Name: "waits for both registries for ever",
		File: "source_records.go",
		Old:  "	r.ready = synced == len(r.sides) || wait <= 0\n",
		New:  "	r.ready = synced == len(r.sides)\n",
		Test: "TestRecordsStart|TestRecordsFirstWait",
	}, {
		Name: "forgets a state with its record",
		File: "source_records.go",
		Old:  "		return false // a state outlives its records\n",
		New:  "		delete(states, service)\n		return known\n",
		Test: "TestRecordsKept",
	}, {
		Name: "ignores records that a registry withholds",
		File: "source_records.go",
		Old:  "		s.put(&e.Withheld[i].Endpoint, touched)\n",
		New:  "		_ = i\n",
		Test: "TestRecordsWithheld",
	}, {
		Name: "reads a format that it does not know",
		File: "source_record.go",
		Old:  "		if format > recordFormat {\n",
		New:  "		if format > 1000 {\n",
		Test: "TestRecordsMalformed",
	}, {
		Name: "logs each change of a malformed record",
		File: "source_records.go",
		Old:  "const problemEvery = 10 * time.Second\n",
		New:  "const problemEvery = time.Millisecond\n",
		Test: "TestRecordsStorm",
	}, {
		Name: "does not say that a record is ignored",
		File: "source_records.go",
		Old:  "		r.ignored[service] = best\n",
		New:  "",
		Test: "TestWriteRecordAfterLoss|TestRecordsSeq",
	}, {
		Name: "writes a seq that a registry may have exceeded",
		File: "source_write.go",
		Old:  "			step = blindStep\n",
		New:  "			step = 1\n",
		Test: "TestWriteRecordOneDown",
	}, {
		Name: "lets the higher phase count of an equal seq",
		File: "phase.go",
		Old:  "cmp.Compare(s.Phase, o.Phase)",
		New:  "cmp.Compare(o.Phase, s.Phase)",
		Test: "TestSupersedes",
	}, {
		Name: "calls when no state changed",
		File: "source.go",
		Old:  "	if !changed {\n",
		New:  "	if !changed && len(states) == 0 {\n",
		Test: "TestFile$|TestRecords$",
	}, {
		Name: "uses the good part of a bad file",
		File: "source_json.go",
		Old:  "	case err != nil:\n		return nil, err\n	case states == nil:\n",
		New:  "	case err != nil && states == nil:\n		return nil, err\n	case states == nil:\n",
		Test: "TestFileBad|TestParseStatesRefuses",
	}, {
		Name: "drops the states of a file that cannot be read",
		File: "source_file.go",
		Old:  "	if err == nil {\n		f.replace(states)\n	}\n",
		New:  "	f.replace(states)\n",
		Test: "TestFileBad",
	}, {
		Name: "reads what is not a file",
		File: "source_file.go",
		Old:  "	case !info.Mode().IsRegular():\n",
		New:  "	case info.IsDir() && info.Size() < 0:\n",
		Test: "TestFileBad",
	},
}
