package action

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/host"
	"singularity/image"
	"singularity/plan"
	"singularity/priv"
)

// useHelper tells whether the setuid helper makes the container. What it cannot
// do is done in a user namespace, where there is one.
func (s *starter) useHelper() bool {
	o := s.o
	switch {
	case os.Getuid() == 0 || o.Userns || o.Fakeroot || s.entry.Unshared || o.ConfigFile != "" || !s.conf.AllowSetuid:
		return false
	case !priv.Installed() || !setuidWorks():
		return false
	case s.conf.RequireIntegrity || s.image.Kind == image.SIF && s.listed():
		s.log.Verbose("Using a user namespace: the setuid helper checks no signatures")
		return false
	case !s.helpedNetwork():
		s.log.Verbose("Using a user namespace: the setuid helper makes no network but those that singularity.conf allows the user")
		return false
	}
	return true
}

// listed tells whether an execution control list must be asked.
func (s *starter) listed() bool {
	list, err := s.hasList()
	return err != nil || list
}

// setuidWorks tells whether a setuid program gains anything here: not with
// no_new_privs, and not in a user namespace.
func setuidWorks() bool {
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 0 {
		return false
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

// kernelMounts tells whether it is worth asking the helper for a mount by the
// kernel: the image is root's, and nothing is to be checked while it is read.
func (s *starter) kernelMounts() bool {
	var st unix.Stat_t
	return s.helper && s.conf.AllowKernelSquashfs && s.image.Format == image.FormatSquashfs && s.image.Trees[s.image.Root] == nil &&
		unix.Fstat(int(s.image.File.Fd()), &st) == nil && st.Uid == 0 && st.Mode&0o022 == 0
}

// granted are the capabilities that the administrator granted the caller.
func (s *starter) granted(groups []int) (plan.Caps, error) {
	list, err := conf.LoadCapabilities(conf.CapabilityPath(), conf.OpenSite)
	if err != nil || s.user.Name == "" {
		return 0, err
	}
	var names []string
	for _, g := range host.Groups(groups) {
		names = append(names, g.Name)
	}
	caps, _ := plan.ParseCaps(list.Granted(s.user.Name, names...))
	return caps, nil
}
