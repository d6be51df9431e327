package cli

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"singularity/action"
	"singularity/build"
	"singularity/container"
	"singularity/plan"
)

// Variables that tell a program started by asRoot what it is.
const (
	ownersVariable = "SINGULARITY_BUILD_OWNERS" // real, mapped or single
	umaskVariable  = "SINGULARITY_BUILD_UMASK"  // of the caller, octal
)

var ownersNames = map[string]build.Owners{"real": build.RealRoot, "mapped": build.MappedRoot, "single": build.SingleID}

// rootKind tells whether asRoot started this process, and what kind of root it
// is.
func rootKind() (build.Owners, uint32, bool) {
	o, ok := ownersNames[os.Getenv(ownersVariable)]
	mask, err := strconv.ParseUint(os.Getenv(umaskVariable), 8, 12)
	return o, uint32(mask), ok && err == nil && os.Getuid() == 0
}

// asRoot runs this program again, with the same arguments, as uid 0 in mount
// and PID namespaces of its own, and returns its exit status. For anybody but
// root that needs a user namespace: with subordinate ids if the caller has any,
// else with a filter that makes changes of ownership succeed quietly. When the
// caller's process dies, everything below dies with it.
func asRoot(log *action.Log, argv []string) (int, error) {
	mask := syscall.Umask(0o022)
	p := &plan.Plan{Namespaces: plan.Namespaces{PID: true}, Root: plan.Root{Kind: plan.HostRoot}}
	// Devices cannot be made in a user namespace and do not work in an image:
	// a build leaves them out for everybody, so that it gives the same bits.
	p.IDs.FakeDevices = true
	kind := "real"
	if uid := os.Getuid(); uid != 0 {
		kind = "mapped"
		p.IDs = plan.IDs{Mode: plan.Ranges, UID: uid, GID: os.Getgid(), FakeDevices: true}
		var err error
		if p.IDs.UIDMap, p.IDs.GIDMap, err = action.IDRanges(uid); err != nil {
			kind = "single"
			p.IDs.Mode, p.IDs.FakeOwners = plan.SingleID, true
			log.Verbose(err.Error())
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	env := append(without(os.Environ(), ownersVariable, umaskVariable), ownersVariable+"="+kind, umaskVariable+"="+strconv.FormatUint(uint64(mask), 8))
	p.Process = plan.Process{Paths: []string{"/proc/self/exe"}, Args: argv, Env: env, Dirs: []string{cwd}, Umask: -1}
	h := container.Hooks{Warning: log.Warning, Debug: log.Debug}
	ws, err := container.Run(p, nil, h)
	if container.NoProc(err) {
		log.Debug(err.Error() + ": using the host's")
		p.Namespaces.PID = false
		ws, err = container.Run(p, nil, h)
	}
	if missing, ok := errors.AsType[*container.MissingToolError](err); ok && kind == "mapped" {
		log.Info("Not using the subordinate ids of this user: " + missing.Error() + " (package uidmap)")
		env[len(env)-2] = ownersVariable + "=single"
		p.IDs = plan.IDs{Mode: plan.SingleID, FakeOwners: true, UID: os.Getuid(), GID: os.Getgid()}
		ws, err = container.Run(p, nil, h)
	}
	if err != nil {
		return 0, action.StartError(err)
	}
	return container.Exit(ws), nil
}

func without(env []string, names ...string) []string {
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		drop := false
		for _, n := range names {
			drop = drop || n == name
		}
		if !drop {
			out = append(out, e)
		}
	}
	return out
}
