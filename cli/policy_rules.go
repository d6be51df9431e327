package cli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"singularity/action"
	"singularity/conf"
	"singularity/conf/edit"
	"singularity/container/cgroup"
	"singularity/host/cdi"
	"singularity/image"
	"singularity/plan"
	"singularity/sif"
	"singularity/sign"
	"singularity/sign/verdict"
)

// An explainer goes through a start in the order of a start.
type explainer struct {
	v    *action.Invocation
	o    *plan.Options
	log  *action.Log
	e    *explanation
	conf *conf.Config
	im   *image.Image
	p    *action.Preview
}

func (x *explainer) explain(ctx context.Context) {
	if !x.configuration() || !x.open() {
		return
	}
	defer x.im.Close()
	x.devices()
	var err error
	x.p, err = action.NewPreview(x.v, x.conf, x.im, x.log)
	x.limits()
	x.blocked()
	x.list()
	x.signature(ctx)
	x.mode()
	for _, note := range x.p.Notes {
		x.e.add("options", ruleIgnored, note, "")
	}
	if err != nil {
		x.e.fail("options", err, "")
	}
	if x.p.Plan != nil {
		x.mount()
		x.namespaces()
		x.binds()
		x.rights()
	}
	x.cgroups()
}

// directive writes a directive as it stands in the file.
func (x *explainer) directive(name string) string {
	d, err := findDirective(name)
	if err != nil {
		return name
	}
	return name + " = " + edit.Value(d, x.conf)
}

// site is the directory of the administrator's files.
func (x *explainer) site() string {
	if x.o.ConfigFile != "" {
		return filepath.Dir(x.o.ConfigFile)
	}
	return conf.Dir()
}

func (x *explainer) configuration() bool {
	c, err := action.LoadConfig(x.o.ConfigFile)
	if err != nil {
		x.e.fail("configuration", err, siteConfigFile())
		return false
	}
	x.conf = c
	if _, err := os.Stat(siteConfigFile()); err != nil {
		x.e.add("configuration", ruleInfo, "there is no file: the defaults hold", siteConfigFile())
	} else {
		x.e.add("configuration", ruleAllowed, "the file was read", siteConfigFile())
	}
	notes, err := plan.Native(x.o, c.OCIMode)
	for _, n := range notes {
		x.e.add("options", ruleIgnored, n, "")
	}
	if err != nil {
		x.e.fail("mode", err, x.directive("oci mode"))
	}
	return err == nil
}

func (x *explainer) open() bool {
	im, err := image.Open(x.v.Image)
	if err != nil {
		x.e.fail("image", err, "")
		return false
	}
	x.im, x.e.Image = im, im.Path
	if err := im.Runnable(); err != nil {
		x.e.fail("image", err, "")
		return true
	}
	text := "a " + im.Kind.String()
	if im.Format.Encrypted() {
		text += ", encrypted: what is in it was not looked at"
	}
	x.e.add("image", ruleAllowed, text, "")
	return true
}

// devices looks for CDI devices, which a start would not go on without.
func (x *explainer) devices() {
	if len(x.o.Devices) == 0 {
		return
	}
	_, notes, err := cdi.Resolve(x.o.Devices, x.o.CDIDirs)
	for _, n := range notes {
		x.e.add("devices", ruleInfo, n, "")
	}
	if err != nil {
		x.e.fail("devices", err, "")
	} else {
		x.e.add("devices", ruleAllowed, strings.Join(x.o.Devices, ", "), "")
	}
	x.o.Devices = nil
}

// limits tells which images the configuration lets be used.
func (x *explainer) limits() {
	for _, c := range x.p.Checks {
		rule := x.directive(c.Directive)
		switch {
		case c.Reason == "" && strings.HasSuffix(rule, "= "):
			x.e.add("limits", ruleAllowed, "no limit", c.Directive+" is empty")
		case c.Reason == "":
			x.e.add("limits", ruleAllowed, "the image keeps to it", rule)
		case x.e.UID == 0:
			x.e.add("limits", ruleInfo, "others would be refused: "+c.Reason, rule)
		default:
			x.e.fail("limits", &c, rule)
		}
	}
}

// blocked asks the list of blocked images.
func (x *explainer) blocked() {
	rule := x.directive("blocked images")
	made, e, err := action.Blocked(x.conf, x.im)
	switch {
	case err != nil:
		x.e.fail("blocked", err, rule)
	case x.conf.BlockedImages == "":
		x.e.add("blocked", ruleInfo, "there is no list of blocked images", "blocked images is empty")
	case x.im.SIF == nil || x.im.SIF.Header().ID == (sif.ID{}):
		x.e.add("blocked", ruleInfo, "the list is about SIF images with an id only", rule)
	case e == nil:
		x.e.add("blocked", ruleAllowed, "the image is not in the list: "+made, rule)
	case time.Now().Before(e.From):
		x.e.add("blocked", ruleAllowed, "until "+e.From.UTC().Format(time.RFC3339)+": "+action.BlockedWhy(e)+"; "+made, rule)
	default:
		x.e.add("blocked", ruleRefused, "since "+e.From.UTC().Format(time.RFC3339)+": "+action.BlockedWhy(e)+"; "+made, rule)
	}
}

// list asks the execution control list.
func (x *explainer) list() {
	if x.im.Kind != image.SIF {
		x.e.add("ecl", ruleInfo, "the list is about SIF images only", "")
		return
	}
	file := filepath.Join(x.site(), sign.ListName)
	d, err := checkECL(x.im.Path, x.site())
	switch {
	case err != nil:
		x.e.fail("ecl", err, file)
	case !d.Activated:
		x.e.add("ecl", ruleInfo, "the list is not activated", file)
	case !d.Allowed:
		x.e.add("ecl", ruleRefused, d.Reason, file+eclGroup(d))
	default:
		x.e.add("ecl", ruleAllowed, "signed by "+strings.Join(d.Signers, ", "), file+eclGroup(d))
	}
}

func eclGroup(d *eclCheck) string {
	if d.Mode == "" {
		return ""
	}
	return ": " + d.Group + ", " + d.Mode
}

// signature tells what is known of the signer, and whether the start cares.
func (x *explainer) signature(ctx context.Context) {
	required := x.conf.RequireIntegrity && x.e.UID != 0
	rule := x.directive("require integrity")
	if x.im.Kind != image.SIF {
		if required {
			x.e.add("signature", ruleRefused, "only a SIF can be signed", rule)
		} else {
			x.e.add("signature", ruleInfo, "only a SIF can be signed", rule)
		}
		return
	}
	full := x.o.Integrity == "full"
	checked := full || x.o.Integrity != "off" && x.im.HasTree()
	dir, err := action.KeyringDir(os.Getenv)
	var v *verdict.Verdict
	if err == nil {
		v, err = sign.JudgeFile(ctx, x.im.File, sign.Site{Full: full, Keyrings: dir, Dir: x.site()})
	}
	if err != nil {
		x.e.fail("signature", err, "")
		return
	}
	text := map[verdict.State]string{
		verdict.Unsigned: "the image is not signed", verdict.Unknown: "the signer is not known here: " + v.Text,
		verdict.Trusted: "signed by " + v.Text, verdict.Refused: "the signature is not valid: " + v.Text,
	}[v.State]
	switch {
	case v.State == verdict.Refused && checked, required && (v.State != verdict.Trusted || v.Tree(x.im.Root) == nil || x.o.Integrity == "off"):
		x.e.add("signature", ruleRefused, text, rule)
	case v.State == verdict.Trusted:
		x.e.add("signature", ruleAllowed, text, rule)
	default:
		x.e.add("signature", ruleInfo, text, rule)
	}
	switch {
	case checked && v.Tree(x.im.Root) != nil:
		x.e.add("integrity", ruleInfo, "all that is read of the image is checked by its hash tree", "--integrity")
	case full:
		x.e.add("integrity", ruleInfo, "all of the image is read and checked before the start", "--integrity")
	default:
		x.e.add("integrity", ruleInfo, "what is read of the image is not checked", "--integrity")
	}
}

// mode tells with whose rights the container is made.
func (x *explainer) mode() {
	if x.p.Plan == nil {
		return
	}
	ids := &x.p.Plan.IDs
	rule := x.directive("allow user ns")
	mode, text := "user namespace", "a user namespace with the caller's ids alone: the rules bind whoever uses this installation, and are no boundary"
	switch {
	case ids.Mode == plan.HostIDs:
		mode, text, rule = "root", "root makes the container, without a user namespace", ""
	case ids.Mode == plan.Ranges:
		mode, text = "fakeroot", "root of a user namespace with subordinate ids"
	case ids.FakeOwners:
		mode, text = "fakeroot", "root of a user namespace with one id: changes of ownership have no effect"
	}
	x.e.Mode = mode
	x.e.add("mode", ruleAllowed, text, rule)
}

// mount tells how the root file system gets there.
func (x *explainer) mount() {
	p := x.p.Plan
	switch {
	case x.p.Unpacked:
		x.e.add("mount", ruleAllowed, "the image is unpacked to a temporary directory", x.directive("tmp sandbox"))
	case p.Root.Kind == plan.DirRoot:
		x.e.add("mount", ruleAllowed, "the directory is mounted", "")
	case p.Root.Kind == plan.ProgramRoot:
		x.e.add("mount", ruleAllowed, "fuse2fs mounts the image for writing", "--writable")
	case x.p.NoFUSE != nil:
		x.e.add("mount", ruleRefused, x.p.NoFUSE.Cause+" ("+x.p.NoFUSE.Cure+")", "")
	default:
		x.e.add("mount", ruleAllowed, "singularity serves the image by FUSE; the kernel never reads it", "")
	}
	for i := range p.Layers {
		l := &p.Layers[i]
		text := "read-only overlay " + l.Path
		switch {
		case l.Kind == plan.TmpfsLayer:
			text = "changes are kept in memory, at most " + cgroup.FormatSize(uint64(l.Size))
		case l.Writable:
			text = "writable overlay " + l.Path
		}
		x.e.add("overlay", ruleAllowed, text, x.directive("enable overlay"))
	}
}

func (x *explainer) namespaces() {
	n := x.p.Plan.Namespaces
	for _, k := range []struct {
		name, directive string
		asked, on       bool
	}{
		{"pid", "allow pid ns", x.o.PID, n.PID}, {"ipc", "allow ipc ns", x.o.IPC, n.IPC}, {"uts", "allow uts ns", x.o.UTS, n.UTS},
	} {
		switch {
		case k.on:
			x.e.add("namespace", ruleAllowed, k.name+": its own", x.directive(k.directive))
		case k.asked:
			x.e.add("namespace", ruleIgnored, k.name+": the host's", x.directive(k.directive))
		default:
			x.e.add("namespace", ruleInfo, k.name+": the host's", "")
		}
	}
	switch {
	case x.p.Plan.NetnsPath != "":
		x.e.add("network", ruleAllowed, "that of "+x.p.Plan.NetnsPath, "--netns-path")
	case n.Net:
		x.e.add("network", ruleAllowed, "its own", "--net")
	default:
		x.e.add("network", ruleInfo, "the host's", "")
	}
}

// bindRules are the directives that decide about mounts, by their tags.
var bindRules = map[string]string{
	"binds": "bind path", "home": "mount home", "tmp": "mount tmp", "dev": "mount dev", "hostfs": "mount hostfs",
	"user": "user bind control", "cwd": "user bind control", "scratch": "user bind control", "fusemount": "enable fusemount", "files": "config resolv_conf",
}

func (x *explainer) binds() {
	for i := range x.p.Plan.Mounts {
		m := &x.p.Plan.Mounts[i]
		rule := ""
		switch name := bindRules[m.Tag]; {
		case m.Destination == "/proc":
			rule = x.directive("mount proc")
		case m.Destination == "/dev" || strings.HasPrefix(m.Destination, "/dev/"):
			rule = x.directive("mount dev")
		case m.Destination == "/sys":
			rule = x.directive("mount sys")
		case name != "":
			rule = x.directive(name)
		}
		text := m.Source + " on " + m.Destination
		switch {
		case m.Kind == plan.SessionDir:
			text = "a directory in memory on " + m.Destination
		case m.Source == "" || m.Source == m.Destination:
			text = m.Destination
		}
		if m.ReadOnly {
			text += ", read-only"
		}
		x.e.add("bind", ruleAllowed, text, rule)
	}
	for _, d := range []string{"mount proc", "mount sys", "mount dev", "mount home", "mount tmp", "config passwd", "config group", "config resolv_conf"} {
		if rule := x.directive(d); strings.HasSuffix(rule, "= no") {
			x.e.add("bind", ruleInfo, "not there", rule)
		}
	}
	if !x.conf.MountSlave {
		x.e.add("bind", ruleInfo, "what is mounted later on the host does not appear", x.directive("mount slave"))
	}
}

func (x *explainer) rights() {
	r := x.p.Plan.Rights
	caps := strings.Join(r.Caps.Names(), ",")
	if caps == "" {
		caps = "none"
	} else if r.Caps == r.Caps|r.Drop {
		caps = "all"
	}
	rule := ""
	switch {
	case x.e.UID == 0 && x.p.Plan.IDs.Mode == plan.HostIDs:
		rule = x.directive("root default capabilities")
	case x.p.Plan.IDs.Mode != plan.HostIDs && r.Caps != 0:
		caps += ", of the user namespace alone"
	}
	x.e.add("capabilities", ruleAllowed, caps, rule)
	if r.NoNewPrivs {
		x.e.add("capabilities", ruleInfo, "setuid programs gain nothing (no_new_privs)", "")
	}
	if r.SetIDs {
		x.e.add("security", ruleAllowed, "runs as uid "+strconv.Itoa(r.UID), "--security")
	}
	if r.LSM != "" {
		x.e.add("security", ruleAllowed, r.LSM+": "+r.Label, "--security")
	}
	if r.Seccomp != "" {
		x.e.add("security", ruleAllowed, "seccomp: "+r.Seccomp, "--security")
	}
	if r.Landlock != nil {
		x.e.add("security", ruleAllowed, "landlock: writing is confined", "--security")
	}
}

// cgroups tries to make the control group that is asked for.
func (x *explainer) cgroups() {
	rule := x.directive("systemd cgroups")
	if !x.v.Limited() {
		x.e.add("cgroups", ruleInfo, "no limits are asked for", rule)
		return
	}
	l, err := readLimits(x.o, x.log)
	if err != nil {
		x.e.fail("cgroups", err, "")
		return
	}
	g, notes, err := cgroup.New(l, x.conf.SystemdCgroups)
	for _, n := range notes {
		x.e.add("cgroups", ruleIgnored, n, "")
	}
	if err != nil {
		x.e.fail("cgroups", err, rule)
		return
	}
	x.e.add("cgroups", ruleAllowed, "limits can be set", rule)
	if err := g.Remove(); err != nil {
		x.log.Warning("Cannot remove a control group: " + err.Error())
	}
}
