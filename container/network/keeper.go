package network

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"singularity/conf"
	"singularity/linux/cni"
)

// KeeperName is the first argument of a keeper: a word that no verb is.
const KeeperName = "@network"

// Modes of a keeper, its second argument.
const (
	siteMode = "site" // lists, plug-ins, names, words: site networks
	userMode = "user" // process id, program, words: a program of the user's
)

// Descriptors of a keeper: it lives until the first ends, and says on the second
// what it did.
const (
	controlFD = 3
	replyFD   = 4
)

// session begins a session, so that no key of a terminal ends the process.
var session = &syscall.SysProcAttr{Setsid: true}

// KeeperMain is the life of a keeper with the arguments behind its name. It
// returns the exit status.
func KeeperMain(args []string) int {
	// Who ends it early would leave what it has to undo.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	syscall.CloseOnExec(controlFD)
	syscall.CloseOnExec(replyFD)
	control, replies := os.NewFile(controlFD, "control"), os.NewFile(replyFD, "replies")
	var undo func() error
	var err error
	switch {
	case len(args) > 3 && args[0] == siteMode:
		undo, err = keepSite(args[1:], replies)
	case len(args) > 2 && args[0] == userMode:
		undo, err = keepUser(args[1:])
	default:
		return 255
	}
	if err != nil {
		say(replies, "error", err.Error())
		return 255
	}
	say(replies, "ready", "")
	io.Copy(io.Discard, control)
	if err := undo(); err != nil {
		say(replies, "warning", err.Error())
		return 255
	}
	return 0
}

func say(w io.Writer, key, value string) {
	io.WriteString(w, key+" "+strconv.Quote(value)+"\n")
}

// keepSite attaches site networks.
func keepSite(args []string, replies io.Writer) (func() error, error) {
	site := &cni.Site{Lists: args[0], Plugins: strings.Split(args[1], ":"), State: stateDir, Open: conf.OpenOwned}
	names := strings.Split(args[2], ",")
	asked, err := cni.ParseArgs(names, args[3:], 0)
	if err != nil {
		return nil, err
	}
	n, err := site.Attach(os.Getuid(), names, asked)
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		key    string
		values []string
	}{{"ip", n.IPs}, {"server", n.Servers}, {"search", n.Search}, {"option", n.Options}, {"path", []string{n.Path()}}} {
		for _, v := range l.values {
			say(replies, l.key, v)
		}
	}
	return n.Detach, nil
}
