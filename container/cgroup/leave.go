package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"

	"singularity/linux/cgroupfs"
)

// leavePrefix is before a process id, in the name of a group for a process that
// left its own. It is empty when that process ends, and removed by a later start.
const leavePrefix = "singularity-linger-"

// Leave moves this process out of the control groups of the batch job or login
// that it belongs to, as far as it may, so that it does not end with them. With
// systemd it goes to a scope of its own. The error is a MissingError that names
// the groups that it is still in, and why.
func Leave(systemd bool) error {
	h, err := cgroupfs.FindHost()
	if err != nil {
		return nil // no group to leave
	}
	root := os.Geteuid() == 0
	e := &MissingError{Cure: "let systemd run for you (loginctl enable-linger USER, then log in through ssh), " +
		"or ask the administrator to delegate the control group around that of a job"}
	scoped := false
	if systemd && h.Mounted(cgroupfs.Unified) && (root && hasSystemd() || !root && userBus() == nil) {
		d, err := new(Group).scope(h, root)
		if err == nil {
			scoped = true
			d.Close()
			if !root && !lingers() {
				e.Missing = append(e.Missing, "the systemd of this user ends with the last login")
			}
		} else {
			e.Missing = append(e.Missing, err.Error())
		}
	}
	places, err := h.Places("self")
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.Path == "/" || scoped && strings.Contains(p.Path, ".scope") {
			continue
		}
		if err := leave(h, p, root); err != nil {
			e.Missing = append(e.Missing, fmt.Sprintf("it is still in the control group %s: %v", path.Join(h.Point(p.Controller), p.Path), err))
		}
	}
	if len(e.Missing) > 0 {
		return e
	}
	return nil
}

// lingers tells whether systemd keeps running for this user without a login.
func lingers() bool {
	u, err := user.Current()
	if err != nil {
		return false
	}
	_, err = os.Stat("/var/lib/systemd/linger/" + path.Base(u.Username))
	return err == nil
}

// leave moves this process to a group in the outermost one that it may move to.
// Root's is that of the whole host, which may have processes.
func leave(h *cgroupfs.Host, p cgroupfs.Place, root bool) error {
	why := errors.New("no group around it was delegated to this user")
	for _, at := range around(p.Path) {
		if err := h.MayMove(p.Controller, p.Path, at); err != nil {
			continue
		}
		d, err := h.Open(p.Controller, at)
		if err != nil {
			return err
		}
		err = enterNew(d, root && at == "/")
		d.Close()
		if err == nil {
			return nil
		}
		why = err
	}
	return why
}

// enterNew moves this process to a new group in d, or to d itself.
func enterNew(d *cgroupfs.Dir, itself bool) error {
	if itself {
		return d.Write("cgroup.procs", "0")
	}
	sweep(d, leavePrefix)
	name := leavePrefix + strconv.Itoa(os.Getpid())
	sub, _, err := d.Mkdir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := sub.Write("cgroup.procs", "0"); err != nil {
		d.Rmdir(name)
		return err
	}
	return nil
}

// around lists the groups around the group at place, the outermost first.
func around(place string) []string {
	var out []string
	for at := path.Dir(place); ; at = path.Dir(at) {
		out = append([]string{at}, out...)
		if at == "/" {
			return out
		}
	}
}
