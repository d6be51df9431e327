package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"singularity/api"
)

// The drawing of an image: its bytes from left to right, in units of the view box
// of an SVG. What is too small to be seen gets minWidth.
const (
	drawnWidth = 1000.0
	minWidth   = 3.0
	barHeight  = 44
	spanHeight = 12
	maxSpans   = 12
)

// anatomy is the drawing, and the same in words.
type anatomy struct {
	Boxes  []box
	Spans  []span
	Height int
	Lines  []line
}

type box struct {
	X, Width float64
	Class    string
	Title    string
}

// span is what a signature says to cover.
type span struct {
	X1, X2, Y float64
	Title     string
}

type line struct {
	api.SIFObject
	Class    string
	Coverage string
}

// draw draws an image.
func draw(i api.Inspection) anatomy {
	covered := map[uint32][]string{}
	for _, o := range i.Objects {
		for _, id := range o.Covers {
			covered[id] = append(covered[id], fmt.Sprint(o.ID))
		}
	}
	scale := drawnWidth / float64(max(i.Image.Size, 1))
	a := anatomy{Height: barHeight}
	places := map[uint32]box{}
	for _, o := range i.Objects {
		l := line{SIFObject: o, Class: "o-open", Coverage: "not signed"}
		switch by := covered[o.ID]; {
		case o.Type == "Signature":
			l.Class, l.Coverage = "o-sig", "signature of "+idList(o.Covers)
		case len(by) > 0:
			l.Class, l.Coverage = "o-covered", "in signature "+strings.Join(by, ", ")
		}
		a.Lines = append(a.Lines, l)
		b := box{X: float64(o.Offset) * scale, Width: max(float64(o.Size)*scale, minWidth), Class: l.Class, Title: fmt.Sprintf("%d: %s %s, %s", o.ID, o.Type, o.Name, l.Coverage)}
		b.X = min(b.X, drawnWidth-b.Width)
		a.Boxes, places[o.ID] = append(a.Boxes, b), b
	}
	for _, o := range i.Objects {
		if len(o.Covers) > 0 && len(a.Spans) < maxSpans {
			a.add(o, places)
		}
	}
	// Small ones are drawn last, over what is large.
	slices.SortStableFunc(a.Boxes, func(x, y box) int { return cmp.Compare(y.Width, x.Width) })
	return a
}

func (a *anatomy) add(o api.SIFObject, places map[uint32]box) {
	s := span{X1: drawnWidth, Y: float64(a.Height + spanHeight/2), Title: fmt.Sprintf("Signature %d is about %s", o.ID, idList(o.Covers))}
	for _, id := range o.Covers {
		if b, ok := places[id]; ok {
			s.X1, s.X2 = min(s.X1, b.X), max(s.X2, b.X+b.Width)
		}
	}
	a.Spans = append(a.Spans, s)
	a.Height += spanHeight
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
