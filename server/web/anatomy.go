package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"singularity/api"
)

// The drawing of an image, in units of the view box of an SVG. Above are its bytes
// from left to right, to scale; what is too small to be seen gets minWidth. Below,
// with lines to where they are, the objects once more at one width each, and under
// them a row for each signature, with a mark below each object that it is about.
const (
	drawnWidth = 1000.0
	minWidth   = 2.0
	barHeight  = 34
	leadHeight = 30
	partHeight = 34
	markHeight = 12
	maxMarks   = 12
	maxParts   = 24 // more would be too narrow to read
)

// anatomy is the drawing, and the same in words.
type anatomy struct {
	Boxes  []box
	Leads  []lead
	Parts  []box
	Marks  []box
	Height int
	Lines  []line
	Open   int // objects that no signature is about, but signatures
}

type box struct {
	X, Y, Width, Height float64
	Class, Title, Label string
	Encrypted           bool
}

// lead leads from a place to scale to the object below.
type lead struct{ X1, Y1, X2, Y2 float64 }

type line struct {
	api.SIFObject
	Class    string
	Coverage string
}

// draw draws an image.
func draw(i api.Inspection) anatomy {
	a := anatomy{Height: barHeight, Lines: linesOf(i.Objects)}
	scale := drawnWidth / float64(max(i.Image.Size, 1))
	for _, l := range a.Lines {
		if l.Class == "o-open" {
			a.Open++
		}
		b := box{X: float64(l.Offset) * scale, Width: max(float64(l.Size)*scale, minWidth), Height: barHeight, Class: l.Class, Encrypted: l.Encrypted,
			Title: fmt.Sprintf("%d: %s %s, %s", l.ID, l.Type, l.Name, l.Coverage)}
		b.Width = min(b.Width, drawnWidth)
		b.X = min(b.X, drawnWidth-b.Width)
		a.Boxes = append(a.Boxes, b)
	}
	if n := len(a.Lines); n > 0 && n <= maxParts {
		a.spread()
	}
	// Small ones are drawn last, over what is large.
	slices.SortStableFunc(a.Boxes, func(x, y box) int { return cmp.Compare(y.Width, x.Width) })
	return a
}

// linesOf are the objects in the order of their bytes, with what covers each.
func linesOf(objects []api.SIFObject) (list []line) {
	covered := map[uint32][]string{}
	for _, o := range objects {
		for _, id := range o.Covers {
			covered[id] = append(covered[id], fmt.Sprint(o.ID))
		}
	}
	for _, o := range objects {
		l := line{SIFObject: o, Class: "o-open", Coverage: "not signed"}
		switch by := covered[o.ID]; {
		case o.Type == "Signature":
			l.Class, l.Coverage = "o-sig", "signature of "+idList(o.Covers)
		case len(by) > 0:
			l.Class, l.Coverage = "o-covered", "in signature "+strings.Join(by, ", ")
		}
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(x, y line) int { return cmp.Compare(x.Offset, y.Offset) })
	return list
}

// spread draws the objects at one width each, and what each signature is about.
func (a *anatomy) spread() {
	const gap = 6
	width := (drawnWidth + gap) / float64(len(a.Lines))
	places := map[uint32]float64{}
	for n, l := range a.Lines {
		p := box{X: float64(n) * width, Y: barHeight + leadHeight, Width: width - gap, Height: partHeight, Class: l.Class, Title: a.Boxes[n].Title, Encrypted: l.Encrypted, Label: fmt.Sprint(l.ID)}
		if width > 90 {
			p.Label += " " + l.Type
		}
		places[l.ID] = p.X
		a.Parts = append(a.Parts, p)
		a.Leads = append(a.Leads, lead{a.Boxes[n].X + a.Boxes[n].Width/2, barHeight, p.X + p.Width/2, p.Y})
	}
	a.Height = barHeight + leadHeight + partHeight + 4
	rows := 0
	for _, l := range a.Lines {
		if len(l.Covers) == 0 || rows == maxMarks {
			continue
		}
		rows++
		for _, id := range l.Covers {
			if x, ok := places[id]; ok {
				a.Marks = append(a.Marks, box{X: x, Y: float64(a.Height) + 3, Width: width - gap, Height: 4, Class: "o-sig", Title: fmt.Sprintf("Signature %d is about object %d", l.ID, id)})
			}
		}
		a.Height += markHeight
	}
}

func idList(ids []uint32) string {
	if len(ids) == 0 {
		return "nothing that is there"
	}
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprint(id))
	}
	if len(list) == 1 {
		return "object " + list[0]
	}
	return "objects " + strings.Join(list, ", ")
}
