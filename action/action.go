// Package action starts containers: the exec, run, shell and test verbs.
//
// In goes the command line, out comes the exit status: that of the contained
// process, 1 for a command line that cannot be understood, 255 for a failure of
// ours. It trusts the caller with the caller's own rights; the administrator's
// word is in package conf, what the image says is checked where it is read.
//
// The program singularity links this package and hardly more, because Go runs
// the initialisers of everything linked before main and each container start
// pays for them: no command framework, no JSON, no HTTP here. Verbs that start
// no container, and images that must be fetched first, go to singularity-cli.
//
// Files: main.go (which program does what), flags.go (the flag tables, which
// help, completion and manual pages read too), parse.go (the parser), usage.go
// (lists of options), start.go (the start itself), envfile.go (environment
// files), shell.go (a shell for images that have none), message.go and
// terminal.go (messages to people), hot.go (--hot-cache), errors.go (exit status
// and hint of each error).
package action
