package env

import "strings"

// IsShell tells whether a program of that name is a shell that our own can
// stand in for.
func IsShell(name string) bool {
	switch name[strings.LastIndexByte(name, '/')+1:] {
	case "sh", "bash", "dash", "ash":
		return true
	}
	return false
}

// IsScript tells whether a file that begins with head is a script for a shell:
// a text whose first line names one, or nothing.
func IsScript(head []byte) bool {
	line, _, _ := strings.Cut(string(head), "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return !strings.Contains(line, "\x00")
	}
	words := strings.Fields(rest)
	if len(words) > 1 && strings.HasSuffix(words[0], "/env") {
		words = words[1:]
	}
	return len(words) > 0 && IsShell(words[0])
}
