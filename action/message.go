package action

import (
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Level orders messages; a message is shown when its level is at most the
// current one. The numbers are those of SINGULARITY_MESSAGELEVEL.
type Level int

// The levels that a message can have.
const (
	LevelFatal   Level = -4
	LevelError   Level = -3
	LevelWarning Level = -2
	LevelInfo    Level = 1
	LevelVerbose Level = 2
	LevelDebug   Level = 5
)

// The levels that the global options set: -s, -q, none, -v and -d.
const (
	SilentLevel  Level = -3
	QuietLevel   Level = -1
	DefaultLevel Level = 1
	VerboseLevel Level = 4
	DebugLevel   Level = 5
)

// Log writes messages to people, one line each, to standard error.
type Log struct {
	Out   io.Writer
	Level Level
	Color bool
}

// NewLog returns a log to standard error at the level that
// SINGULARITY_MESSAGELEVEL names, else the default one.
func NewLog() *Log {
	l := &Log{Out: os.Stderr, Level: DefaultLevel, Color: IsTerminal(2)}
	if n, err := strconv.Atoi(os.Getenv("SINGULARITY_MESSAGELEVEL")); err == nil {
		// Values moved by 90 mean the same level without colour.
		if n > 45 {
			n, l.Color = n-90, false
		} else if n < -45 {
			n, l.Color = n+90, false
		}
		l.Level = Level(n)
	}
	return l
}

// Fatal writes a FATAL message. It does not end the process: only Main does.
func (l *Log) Fatal(msg string) { l.write(LevelFatal, "FATAL:  ", "31", msg) }

// Error writes an ERROR message.
func (l *Log) Error(msg string) { l.write(LevelError, "ERROR:  ", "31", msg) }

// Warning writes a WARNING message.
func (l *Log) Warning(msg string) { l.write(LevelWarning, "WARNING:", "33", msg) }

// Info writes an INFO message.
func (l *Log) Info(msg string) { l.write(LevelInfo, "INFO:   ", "34", msg) }

// Verbose writes a VERBOSE message, shown with -v.
func (l *Log) Verbose(msg string) { l.write(LevelVerbose, "VERBOSE:", "", msg) }

// Debug writes a DEBUG message, shown with -d.
func (l *Log) Debug(msg string) { l.write(LevelDebug, "DEBUG:  ", "", msg) }

func (l *Log) write(level Level, word, color, msg string) {
	if level > l.Level {
		return
	}
	if l.Level >= LevelDebug {
		word = strings.Replace(word, ":", " ", 1)
		msg = "[U=" + strconv.Itoa(os.Geteuid()) + ",P=" + strconv.Itoa(os.Getpid()) + "]   " + caller() + "   " + msg
	}
	if l.Color && color != "" {
		word = "\x1b[" + color + "m" + word + "\x1b[0m"
	}
	io.WriteString(l.Out, word+" "+Printable(msg)+"\n")
}

// caller names the function that wrote a message, as main() for main.main.
func caller() string {
	const skip = 3 // this function, write and the method of the level
	pc, _, _, ok := runtime.Caller(skip)
	f := runtime.FuncForPC(pc)
	if !ok || f == nil {
		return "unknown()"
	}
	name := f.Name()
	return name[strings.LastIndexByte(name, '.')+1:] + "()"
}

// Printable returns s with every control character, C1 and bidirectional mark
// replaced by a visible escape, so that text from an image or a server cannot
// drive the terminal. A tab and a line feed stay.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if isControl(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool {
	switch {
	case r == '\t' || r == '\n':
		return false
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xfffd:
		return true
	case r == 0x061c, r >= 0x200e && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}
