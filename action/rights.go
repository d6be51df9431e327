package action

import (
	"os"

	"singularity/conf"
	"singularity/host"
	"singularity/plan"
)

// rights finds what the container's process can be given, and what this kernel
// can confine it with.
func (s *starter) rights(h *plan.HostFacts, groups []int) error {
	have, known := host.Capabilities()
	h.Caps, h.KnownCaps = plan.Caps(have), plan.Caps(known)
	if s.helper && len(s.o.AddCaps) > 0 {
		granted, err := s.granted(groups)
		if err != nil {
			return err
		}
		h.Caps = granted & h.KnownCaps
	}
	if s.conf.RootDefaultCapabilities == plan.RootCapsFile && os.Getuid() == 0 {
		c, err := conf.LoadCapabilities(s.siteDir()+"/capability.json", conf.OpenSite)
		if err != nil {
			return OwnerHint(err)
		}
		h.FileCaps = c.Granted("root")
	}
	if len(s.o.Security) > 0 {
		h.Supported = plan.Supported{AppArmor: host.AppArmor(), SELinux: host.SELinux(), Seccomp: host.Seccomp(), Landlock: host.Landlock() > 0}
	}
	return nil
}

// target returns who the process is inside, if --security changes that, for
// the generated files. What is wrong with the option is plan.New's to say.
func (s *starter) target(inside host.User, groups []int) (host.User, []int) {
	sec, err := plan.ParseSecurity(s.o.Security)
	if err != nil || sec.UID < 0 && len(sec.GIDs) == 0 {
		return inside, groups
	}
	if len(sec.GIDs) > 0 {
		groups = sec.GIDs
	}
	if sec.UID >= 0 {
		user, err := host.LookupUser(sec.UID, groups[0])
		if err != nil {
			s.log.Warning(err.Error())
		}
		inside = user
	}
	return inside, groups
}
