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
	case s.demanded() && s.kernelMay() == 0:
		s.log.Verbose("Using a user namespace: the site demands signatures, and the kernel does not mount this image by a signed hash tree")
		return false
	case !s.helpedNetwork():
		s.log.Verbose("Using a user namespace: the setuid helper makes no network but those that singularity.conf allows the user")
		return false
	}
	return true
}

// demanded tells whether the site demands a signature of the image.
func (s *starter) demanded() bool {
	return s.conf.RequireIntegrity || s.image.Kind == image.SIF && s.listed()
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

// kernelMay tells as what the helper can have the kernel mount the image, 0 for not
// at all, as far as can be told without its rights: the image is root's, or has a
// hash tree and the kernel has dm-verity.
func (s *starter) kernelMay() priv.FS {
	kind := s.kernelFS()
	if s.image.HasTree() && s.o.Integrity != integrityOff || s.conf.RequireIntegrity {
		if !s.image.HasTree() || !exists("/dev/mapper/control") || !exists(conf.Dir()+"/global-pgp-public") {
			return 0
		}
		return kind
	}
	var st unix.Stat_t
	if unix.Fstat(int(s.image.File.Fd()), &st) != nil || st.Uid != 0 || st.Mode&0o022 != 0 {
		return 0
	}
	return kind
}

// kernelFS is what the root partition is to the kernel, if the site lets it be mounted.
func (s *starter) kernelFS() priv.FS {
	switch {
	case s.image.Format == image.FormatSquashfs && s.conf.AllowKernelSquashfs:
		return priv.SquashfsFS
	case s.image.Format == image.FormatExt && s.conf.AllowKernelExtfs:
		return priv.Ext3FS
	case s.image.Format == image.FormatEncrypted && s.conf.AllowKernelSquashfs && exists("/dev/mapper/control"):
		return priv.CryptFS
	}
	return 0
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// kernelMounts tells as what it is worth asking the helper for a mount by the
// kernel. What is to be checked while it is read must have been signed with a
// key that is known here.
func (s *starter) kernelMounts() priv.FS {
	if !s.helper || s.image.Trees[s.image.Root] != nil && (!s.trusted || s.o.IntegrityPanic) {
		return 0
	}
	return s.kernelMay()
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
