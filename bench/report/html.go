package report

import (
	"bytes"
	_ "embed"
	"html/template"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

//go:embed page.html
var page string

// The parts of the page, as page.html names them.
type (
	chapter struct {
		Name, Title string
		Parts       []part
	}
	part struct {
		Title   string
		Metrics []string
		Lines   []line
		Errs    []string
		Charts  []template.HTML
	}
	line struct {
		Peer, Class string
		Cells       []cell
	}
	cell struct {
		Text, Class string
	}
	verdict struct {
		Class  string
		Fields []string
	}
)

// HTML writes the report as a page that refers to no other file.
func (r *Report) HTML(w io.Writer) error {
	var chapters []chapter
	for _, t := range r.tables() {
		if len(chapters) == 0 || chapters[len(chapters)-1].Name != t.scenario {
			chapters = append(chapters, chapter{Name: t.scenario, Title: r.titleOf(t.scenario)})
		}
		p, err := t.part()
		if err != nil {
			return err
		}
		c := &chapters[len(chapters)-1]
		c.Parts = append(c.Parts, p)
	}
	var verdicts []verdict
	met := 0
	for _, v := range r.Verdicts {
		if v.Met {
			met++
			verdicts = append(verdicts, verdict{"good", v.fields()})
		} else {
			verdicts = append(verdicts, verdict{"bad", v.fields()})
		}
	}
	t, err := template.New("page").Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, map[string]any{
		"Facts": r.Facts, "Legend": Legend, "Chapters": chapters,
		"Verdicts": verdicts, "Met": met,
	})
}

// part returns a table and its charts.
func (t *table) part() (part, error) {
	p := part{Title: strings.TrimSpace(t.backend + " " + t.name), Metrics: t.metrics, Errs: t.errs}
	for _, peer := range t.peers {
		l := line{Peer: peer, Class: class(peer)}
		for _, m := range t.metrics {
			c := cell{Text: t.cell(peer, m)}
			if t.cells[[2]string{peer, m}].Err != "" {
				c.Class = "bad"
			}
			l.Cells = append(l.Cells, c)
		}
		p.Lines = append(p.Lines, l)
	}
	for _, m := range t.metrics {
		svg, err := t.chart(m)
		if err != nil {
			return part{}, err
		}
		if svg != "" {
			p.Charts = append(p.Charts, svg)
		}
	}
	return p, nil
}

// class returns the kind of a peer.
func class(peer string) string {
	switch {
	case strings.HasPrefix(peer, "floor"):
		return "floor"
	case strings.Contains(peer, "+"):
		return "planted"
	case strings.HasPrefix(peer, "ours"):
		return "ours"
	}
	return "peer"
}

var colors = map[string]color.RGBA{
	"floor":   {0x77, 0x77, 0x77, 0xff},
	"ours":    {0x00, 0x5c, 0xc5, 0xff},
	"planted": {0x8a, 0xb4, 0xe8, 0xff},
	"peer":    {0xc2, 0x4e, 0x00, 0xff},
}

// points are the values of one peer: a dot at the median, a bar for the rest.
type points struct {
	plotter.XYs
	plotter.XErrors
}

// chart draws a metric of all peers. It returns nothing if there is nothing to compare.
func (t *table) chart(metric string) (template.HTML, error) {
	var peers []string
	least, most := math.Inf(1), math.Inf(-1)
	for _, p := range t.peers {
		if r := t.cells[[2]string{p, metric}]; len(r.Values) > 0 {
			peers = append(peers, p)
			least, most = min(least, slices.Min(r.Values)), max(most, slices.Max(r.Values))
		}
	}
	if len(peers) < 2 || least == most {
		return "", nil
	}
	slices.Reverse(peers) // the first at the top
	p := newPlot(metric, peers, least, most)
	for i, peer := range peers {
		if err := addPoints(p, peer, SpreadOf(t.cells[[2]string{peer, metric}].Values), float64(i)); err != nil {
			return "", err
		}
	}
	const width = 330
	height := vg.Length(45 + 17*len(peers))
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), 8, -16, 4, -4)) // labels reach a little beyond
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	svg := b.String()
	return template.HTML(svg[strings.Index(svg, "<svg"):]), nil // without the XML declaration
}

// newPlot returns a chart without values, with a row for each peer.
func newPlot(title string, peers []string, least, most float64) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	for style, size := range map[*text.Style]vg.Length{&p.Title.TextStyle: 11, &p.X.Tick.Label: 9, &p.Y.Tick.Label: 9} {
		style.Font.Variant, style.Font.Size = "Sans", size
	}
	p.NominalY(peers...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(peers))-0.5
	p.X.Min, p.X.Max = min(least, 0), most*1.05
	if least > 0 && most/least > 20 {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.X.Min, p.X.Max = math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most)))
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xee}, color.Gray{0xdd}
	p.Add(grid)
	return p
}

// addPoints adds the values of one peer, at a height of y.
func addPoints(p *plot.Plot, peer string, s Spread, y float64) error {
	pts := points{
		plotter.XYs{{X: s.Median, Y: y}},
		plotter.XErrors{{Low: s.Min - s.Median, High: s.Max - s.Median}},
	}
	bar, err := plotter.NewXErrorBars(pts)
	if err != nil {
		return err
	}
	dot, err := plotter.NewScatter(pts.XYs)
	if err != nil {
		return err
	}
	c := colors[class(peer)]
	bar.Color, bar.Width, bar.CapWidth = c, 1.5, 5
	dot.GlyphStyle = draw.GlyphStyle{Color: c, Radius: 3.5, Shape: draw.CircleGlyph{}}
	p.Add(bar, dot)
	return nil
}
