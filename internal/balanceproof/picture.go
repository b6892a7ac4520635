package balanceproof

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"
)

// Sizes of the picture in pixels. It has two columns and two rows of charts.
const (
	pictureWidth  = 760
	pictureHeight = 612
	chartWidth    = 340
	leftColumn    = 24
	rightColumn   = 396
	topRow        = 62
	bottomRow     = 348
)

// The background is part of the picture, so that it can be read on light and on dark pages.
const pictureStyle = `<style>
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#c9d1d9}
.h{font-weight:bold;font-size:14px;fill:#f0f6fc}.s{fill:#9da7b3}.e{text-anchor:end}.m{text-anchor:middle}
.a{fill:#58a6ff}.b{fill:#3fb950}.c{fill:#d29922}.g{fill:#6e7681}.t{stroke:#f0f6fc;stroke-width:2}.l{stroke:#30363d}
</style>
`

// canvas is the picture that is drawn.
type canvas struct{ bytes.Buffer }

func (c *canvas) text(x, y float64, class, format string, args ...any) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s">%s</text>`+"\n", x, y, class, escaper.Replace(fmt.Sprintf(format, args...)))
}

func (c *canvas) rect(x, y, width, height float64, class string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s"/>`+"\n", x, y, width, height, class)
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

// Picture returns the picture of a report, as SVG.
func (r *Report) Picture() []byte {
	c := new(canvas)
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title desc">`+"\n",
		pictureWidth, pictureHeight)
	c.WriteString(`<title id="title">How the policy spreads calls and connections, measured</title>` + "\n")
	fmt.Fprintf(c, `<desc id="desc">%s</desc>`+"\n%s", escaper.Replace(r.describe()), pictureStyle)
	fmt.Fprintf(c, `<rect x=".5" y=".5" width="%d" height="%d" rx="8" fill="#0d1117" stroke="#6e7681"/>`+"\n", pictureWidth-1, pictureHeight-1)
	failed, calls := r.Rolling.Failed()
	c.text(leftColumn, 30, "s", "Measured on gRPC servers by make balance. In rolling restarts, %d of %s calls failed.", failed, thousands(calls))
	r.drawWeights(c, leftColumn, topRow)
	r.drawZones(c, rightColumn, topRow)
	r.drawSlow(c, leftColumn, bottomRow)
	r.drawSubsets(c, rightColumn, bottomRow)
	c.WriteString("</svg>\n")
	return c.Bytes()
}

// describe returns the picture in words.
func (r *Report) describe() string {
	z, last := r.Zones, r.Slow.Policies[len(r.Slow.Policies)-1]
	s := r.Subsets.Computed
	return fmt.Sprintf("Four charts. Weights: every server's share of the calls is within %.1f percent of its weight, before and after a change of the weights. "+
		"Zones: the own zone gets %.0f, %.0f and %.0f percent of the calls with three, one and none of its servers left. "+
		"One slow server of ten: the 99th percentile is %s with round_robin and %s with %s. "+
		"Subsets: servers have from %d to %d connections by name, and from %d to %d by number.",
		100*r.Weights.deviation(), 100*z[0].Measured, 100*z[1].Measured, 100*z[2].Measured,
		milliseconds(r.Slow.Policies[0].P99), milliseconds(last.P99), last.Policy, s[0].Min(), s[0].Max(), s[1].Min(), s[1].Max())
}

// drawWeights draws, for each server, its weight and its share of the calls.
func (r *Report) drawWeights(c *canvas, x, y float64) {
	c.text(x, y, "h", "Weights")
	c.text(x, y+18, "s", "share of the calls; the white line is the weight's share")
	for k, b := range []ByWeight{r.Weights.First, r.Weights.Second} {
		left := x + float64(k)*176
		c.text(left, y+42, "", "%s", []string{"at first", "after a change of the weights"}[k])
		const height, base = 130, 196
		for i, w := range b.Weights {
			measured, computed := b.Share(i)
			const full = 0.6
			bar, at := measured/full*height, left+float64(i)*32
			c.rect(at, y+base-bar, 24, bar, "a")
			mark := y + base - computed/full*height
			c.line(at-3, mark, at+27, mark, "t")
			c.text(at+12, y+base-max(bar, computed/full*height)-7, "m", "%.1f", 100*measured)
			c.text(at+12, y+base+16, "m s", "%g", w)
		}
		c.line(left-3, y+base, left+155, y+base, "l")
	}
	c.text(x, y+234, "s", "%%, above the weight. %s calls, %d new connections", thousands(sum(r.Weights.First.Calls)+sum(r.Weights.Second.Calls)), r.Weights.AcceptedAfter)
}

// drawZones draws which calls stay in the zone.
func (r *Report) drawZones(c *canvas, x, y float64) {
	c.text(x, y, "h", "Zones")
	c.text(x, y+18, "s", "three zones with three servers each; a caller in zone a")
	for i, z := range r.Zones {
		top := y + 48 + float64(i)*58
		own := z.Measured * chartWidth
		c.text(x, top, "", "%s in zone a", plural(z.Own, "server"))
		c.text(x+chartWidth, top, "e", "%.1f %% stay (formula: %.0f %%)", 100*z.Measured, 100*z.Computed)
		c.rect(x, top+8, own, 22, "b")
		c.rect(x+own, top+8, chartWidth-own, 22, "g")
		c.line(x+z.Computed*chartWidth, top+4, x+z.Computed*chartWidth, top+34, "t")
	}
	c.rect(x, y+224, 10, 10, "b")
	c.text(x+15, y+233, "s", "own zone")
	c.rect(x+84, y+224, 10, 10, "g")
	c.text(x+99, y+233, "s", "other zones")
	c.line(x+180, y+222, x+180, y+236, "t")
	c.text(x+188, y+233, "s", "formula")
}

// drawSlow draws the latencies with each policy.
func (r *Report) drawSlow(c *canvas, x, y float64) {
	c.text(x, y, "h", "One slow server of ten")
	c.text(x, y+18, "s", "a call takes %g ms, and %g ms at the slow server", inMilliseconds(r.Slow.Fast), inMilliseconds(r.Slow.Slow))
	var most time.Duration
	for _, p := range r.Slow.Policies {
		most = max(most, p.P99)
	}
	const width = 270
	for i, p := range r.Slow.Policies {
		top := y + 46 + float64(i)*46
		c.text(x, top, "", "%s", p.Policy)
		c.text(x+chartWidth, top, "e s", "slow server: %.1f %% of the calls", 100*p.Share)
		for k, d := range []time.Duration{p.P50, p.P99} {
			bar := max(float64(d)/float64(most)*width, 1)
			c.rect(x, top+6+float64(k)*13, bar, 11, []string{"a", "c"}[k])
			c.text(x+bar+6, top+15.5+float64(k)*13, "s", "%s", milliseconds(d))
		}
	}
	c.rect(x, y+224, 10, 10, "a")
	c.text(x+15, y+233, "s", "median")
	c.rect(x+84, y+224, 10, 10, "c")
	c.text(x+99, y+233, "s", "99th percentile of the time of a call")
}

// drawSubsets draws how many servers have how many connections.
func (r *Report) drawSubsets(c *canvas, x, y float64) {
	one := r.Subsets.Computed[0]
	c.text(x, y, "h", "Subsets")
	c.text(x, y+18, "s", "%s clients connect to %d of %d servers each", thousands(int64(one.Clients)), one.Size, one.Servers)
	low, high := math.MaxInt, 0
	for _, s := range r.Subsets.Computed {
		low, high = min(low, s.Min()), max(high, s.Max())
	}
	const width, height = chartWidth - 10, 62
	place := func(connections int) float64 {
		return x + float64(connections-low)/float64(high-low+1)*width
	}
	for k, s := range r.Subsets.Computed {
		base := y + 116 + float64(k)*92
		c.text(x, base-height-6, "", "by %s: %d to %d connections of a server", []string{"name", "number"}[k], s.Min(), s.Max())
		servers := make(map[int]int)
		most := 0
		for _, n := range s.PerServer {
			servers[n]++
			most = max(most, servers[n])
		}
		for n := low; n <= high; n++ {
			if servers[n] > 0 {
				bar := max(float64(servers[n])/float64(most)*height, 1.5)
				c.rect(place(n), base-bar, width/float64(high-low+1)-1, bar, []string{"a", "b"}[k])
			}
		}
		c.line(x, base+.5, x+width, base+.5, "l")
	}
	for _, n := range []int{low, one.Median(), high} {
		c.text(place(n)+width/float64(high-low+1)/2, y+224, "m s", "%d", n)
	}
	c.text(x, y+242, "s", "connections of a server; the height is the number of servers")
}

// milliseconds returns a time as text.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", inMilliseconds(d))
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// plural returns a number and a noun.
func plural(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "1 " + noun
	}
	return fmt.Sprint(n, " ", noun, "s")
}

// thousands returns a number with commas.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
