package main

import (
	"regexp"
	"slices"
	"strings"
)

// phrase is a pattern of words to avoid.
type phrase struct {
	pattern *regexp.Regexp
	except  *regexp.Regexp // of what stands around the match; nil means no exception
	instead string
}

// around is how many bytes on each side of a match an exception may look at.
const around = 20

// phrases are words that mean nothing in this field, or say what is not. The list is
// short of false positives rather than complete.
var phrases = func() (list []phrase) {
	for _, p := range []struct{ pattern, except, instead string }{
		{`any ?more`, ``, `"no longer"`},
		{`no more`, `no more than`, `"no longer"`},
		{`(is|are|was|were|be) none`, ``, `say what is: "X is not an error", "returns an error"`},
		{
			`(is|are|was|were) no [a-z]+`,
			`there (is|are|was|were) no|(is|are|was|were) no (longer|more|less|fewer|other|such|different|greater|larger|later|earlier|better|worse|one)\b`,
			`say what is, or "is not a ..."`,
		},
		{`(is|are|was|were) some`, `(is|are|was|were) some (of|time|[a-z]+s)\b|there (is|are|was|were) some`, `say which`},
		{`tell|tells|told|telling`, ``, `"returns", "reports", "notifies", "distinguishes"`},
		{`(take|takes|took|taken|taking) in`, `(takes?|took|taken|taking) in (the (worst|best)|total|all|order|turn|practice|a row)`, `"applies", "accepts", "adds"`},
		{`bear|bears|bore|borne`, ``, `"has", "holds", "tolerates"`},
		{`(is|are|was|were|be|been) well`, `well([- ](known|formed|defined|tested)|-)`, `"is healthy"`},
		{`(is|are|was|were) worth`, ``, `say what it costs or gives`},
		{`(is|are|was|were) work`, ``, `say what it costs`},
		{`who(so)?ever`, ``, `name the caller, the reader, the program`},
		{`without a word`, ``, `"without a log line", "without an error"`},
		{`signs? of life`, ``, `name the message`},
		{`like (theirs|ours|his|hers)|(their|its) like`, ``, `name the thing again`},
		{`(of )?one's own`, ``, `name the owner`},
		{`the latter`, ``, `name the thing again`},
		{`whence|whither|lest|therein|wherein|thereof|whereof|hitherto`, ``, `use a modern word`},
	} {
		c := phrase{pattern: words(p.pattern), instead: p.instead}
		if p.except != "" {
			c.except = regexp.MustCompile(`(?i)` + p.except)
		}
		list = append(list, c)
	}
	return list
}()

func words(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b(?:` + strings.ReplaceAll(pattern, " ", `\s+`) + `)\b`)
}

// passage is text in lines that belong together.
type passage struct {
	first int // the number of the first line
	lines []string
}

// findPhrases returns a finding for each phrase in a passage. A phrase may extend over
// the end of a line.
func findPhrases(kind, file string, p passage) (findings []finding) {
	text := strings.Join(p.lines, "\n")
	for _, ph := range phrases {
		for _, at := range ph.pattern.FindAllStringIndex(text, -1) {
			near := strings.Join(strings.Fields(text[max(at[0]-around, 0):min(at[1]+around, len(text))]), " ")
			if ph.except != nil && ph.except.MatchString(near) {
				continue
			}
			findings = append(findings, finding{
				kind: kind, file: file, line: p.first + strings.Count(text[:at[0]], "\n"),
				text: `"` + strings.Join(strings.Fields(text[at[0]:at[1]]), " ") + `": ` + ph.instead,
			})
		}
	}
	slices.SortStableFunc(findings, func(a, b finding) int { return a.line - b.line })
	return findings
}

// fence matches the lines that begin and end code in Markdown.
var (
	fence      = regexp.MustCompile("^\\s*(```|~~~)")
	inlineCode = regexp.MustCompile("`[^`]*`")
)

// checkMarkdown returns the findings in the paragraphs of a Markdown file. Code is
// skipped.
func checkMarkdown(file string, text []byte) (findings []finding) {
	var p passage
	flush := func() {
		findings = append(findings, findPhrases("words-md", file, p)...)
		p.lines = nil
	}
	code := false
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		switch {
		case fence.MatchString(line):
			code = !code
			flush()
		case code:
		case strings.TrimSpace(line) == "":
			flush()
		default:
			if p.lines == nil {
				p.first = number
			}
			p.lines = append(p.lines, inlineCode.ReplaceAllString(strings.TrimSuffix(line, "\n"), "``"))
		}
	}
	flush()
	return findings
}
