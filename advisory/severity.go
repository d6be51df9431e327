package advisory

import (
	"strconv"
	"strings"

	cvss2 "github.com/pandatix/go-cvss/20"
	cvss30 "github.com/pandatix/go-cvss/30"
	cvss31 "github.com/pandatix/go-cvss/31"
	cvss4 "github.com/pandatix/go-cvss/40"
)

// Level is how bad a fault is.
type Level int

// Levels, the worst last. A fault of unknown severity is above Negligible and
// below Low for those who ask for "low and above" only in what they see; a
// policy decides on known ones.
const (
	Unknown Level = iota
	Negligible
	Low
	Medium
	High
	Critical
)

var levelNames = [...]string{"unknown", "negligible", "low", "medium", "high", "critical"}

func (l Level) String() string { return levelNames[l] }

// MarshalText writes the name of l.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the name of a level.
func (l *Level) UnmarshalText(b []byte) error {
	v, ok := ParseLevel(string(b))
	if !ok {
		return strconv.ErrSyntax
	}
	*l = v
	return nil
}

// ParseLevel reads a level as people and databases write it.
func ParseLevel(s string) (Level, bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "unknown", "none", "not yet assigned", "end-of-life", "untriaged":
		return Unknown, true
	case "negligible", "unimportant":
		return Negligible, true
	case "low", "low*", "low**":
		return Low, true
	case "medium", "moderate", "medium*", "medium**":
		return Medium, true
	case "high", "important", "high*", "high**":
		return High, true
	case "critical":
		return Critical, true
	}
	return Unknown, false
}

// levelOf is the level of what a says, else of what r says as a whole.
func levelOf(r *Record, a *Affected) Level {
	for _, list := range [][]Score{a.Severity, r.Severity} {
		worst := Unknown
		for _, s := range list {
			worst = max(worst, s.level())
		}
		if worst != Unknown {
			return worst
		}
	}
	for _, s := range []specific{a.Ecosystem, a.Database, r.Database} {
		for _, t := range []anyText{s.Severity, s.Urgency} {
			if l, _ := ParseLevel(string(t)); l != Unknown {
				return l
			}
		}
	}
	return Unknown
}

// level is the qualitative rating of the score (CVSS 3.1 section 5).
func (s Score) level() Level {
	if len(s.Score) > maxName {
		return Unknown
	}
	points := 0.0
	switch s.Type {
	case "CVSS_V2":
		if v, err := cvss2.ParseVector(s.Score); err == nil {
			points = v.BaseScore()
		}
	case "CVSS_V3":
		if v, err := cvss31.ParseVector(s.Score); err == nil {
			points = v.BaseScore()
		} else if v, err := cvss30.ParseVector(s.Score); err == nil {
			points = v.BaseScore()
		}
	case "CVSS_V4":
		if v, err := cvss4.ParseVector(s.Score); err == nil {
			points = v.Score()
		}
	default: // Ubuntu and others have words
		l, _ := ParseLevel(s.Score)
		return l
	}
	switch {
	case points >= 9:
		return Critical
	case points >= 7:
		return High
	case points >= 4:
		return Medium
	case points > 0:
		return Low
	}
	return Unknown
}
