package cli

import (
	"errors"

	"singularity/action"
	"singularity/conf"
	"singularity/container/cgroup"
	"singularity/plan"
)

// limit makes a control group with the limits of the flags, or of the file that
// --apply-cgroups names. Without either it is for the statistics of an instance
// and may be missing.
func limit(o *plan.Options, c *conf.Config, log *action.Log) (action.Group, error) {
	l, err := readLimits(o, log)
	if err != nil {
		return nil, action.Fatal(err, "")
	}
	g, notes, err := cgroup.New(l, c.SystemdCgroups)
	if err != nil && o.ApplyCgroups == "" && !o.Limits.Any() {
		log.Verbose("no control group: " + err.Error())
		log.Info("Instance stats will not be available - requires cgroup support that this host does not give")
		return nil, nil
	}
	for _, n := range notes {
		log.Warning(n)
	}
	if err != nil {
		hint := ""
		if lack, ok := errors.AsType[*cgroup.MissingError](err); ok {
			hint = lack.Cure
		}
		return nil, action.Fatal(errors.New("cannot apply cgroups: "+err.Error()), hint)
	}
	log.Debug("control group " + g.Path())
	return g, nil
}

func readLimits(o *plan.Options, log *action.Log) (*cgroup.Limits, error) {
	file := o.ApplyCgroups
	switch {
	case file != "" && o.Limits.Any():
		return nil, cgroup.ErrBoth
	case file == "":
		return cgroup.FromFlags(cgroup.Flags(o.Limits))
	}
	l, notes, err := cgroup.OpenTOML(file)
	for _, n := range notes {
		log.Warning(n)
	}
	return l, err
}

// leave moves this process, which watches an instance, out of the control groups
// of its batch job, or says why the instance will end with them.
func leave(c *conf.Config, log *action.Log) {
	err := cgroup.Leave(c.SystemdCgroups)
	if err == nil {
		return
	}
	text := "The instance may end with this job or login in spite of --linger: " + err.Error()
	if lack, ok := errors.AsType[*cgroup.MissingError](err); ok {
		text += " (" + lack.Cure + ")"
	}
	log.Warning(text)
}
