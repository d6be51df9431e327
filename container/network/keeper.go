package network

import (
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"singularity/conf"
	"singularity/linux/cni"
	"singularity/priv"
	"singularity/priv/keeper"
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
	return keeper.Keep(control, replies, undo, err)
}

// keepSite attaches site networks.
func keepSite(args []string, replies io.Writer) (func() error, error) {
	site := &cni.Site{Lists: args[0], Plugins: strings.Split(args[1], ":"), State: priv.Networks, Open: conf.OpenOwned}
	names := strings.Split(args[2], ",")
	asked, err := cni.ParseArgs(names, args[3:], 0)
	if err != nil {
		return nil, err
	}
	return keeper.Attach(site, os.Getuid(), names, asked, replies)
}
