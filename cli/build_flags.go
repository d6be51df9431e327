package cli

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"singularity/action"
	"singularity/build"
	"singularity/build/source"
	"singularity/conf"
	"singularity/host"
	"singularity/sif"
	"singularity/sign"
)

// refusedFlags are flags of build that are understood and not part of this
// version.
type refusedFlags struct {
	oci, noOCI, keepLayers bool
}

// refusedEnv are the keys of environment variables for refusedFlags and remoteBuild.
var refusedEnv = []flagEnv{
	{"remote", "REMOTE", false}, {"builder", "BUILDER", false}, {"detached", "DETACHED", false},
	{"oci", "OCI", false}, {"no-oci", "NO_OCI", false}, {"keep-layers", "KEEP_LAYERS", false},
}

func (r *refusedFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&r.oci, "oci", false, "make an OCI-SIF from a Dockerfile")
	f.BoolVar(&r.noOCI, "no-oci", false, "make a native SIF (default)")
	f.BoolVar(&r.keepLayers, "keep-layers", false, "keep the layers of an OCI-SIF")
	for _, name := range []string{"oci", "no-oci", "keep-layers"} {
		f.Lookup(name).Hidden = true // none of them can be used yet
	}
}

func (r *refusedFlags) check() error {
	switch {
	case r.oci && r.noOCI:
		return errors.New("--oci and --no-oci exclude each other")
	case r.oci:
		return action.Fatal(errors.New("cannot build an OCI-SIF: Dockerfiles are not part of this version"), "write a definition file, and leave out --oci")
	case r.keepLayers:
		return errors.New("--keep-layers needs --oci")
	}
	return nil
}

// drivers finds what --nv and --rocm show.
func (f *buildFlags) drivers(log *action.Log) (build.Drivers, error) {
	nv := f.nv || f.nvccli
	if !nv && !f.rocm {
		return build.Drivers{}, nil
	}
	c, err := action.LoadConfig(os.Getenv("SINGULARITY_CONFIG_FILE"))
	if err != nil {
		return build.Drivers{}, err
	}
	d := build.Drivers{Vendor: "nv"}
	if !nv {
		d.Vendor = "rocm"
	} else if f.rocm {
		log.Warning("--nv and --rocm cannot be used together. Only --nv will be applied.")
	}
	found, err := host.FindDrivers(d.Vendor, action.DriverSearch(c, ""))
	if err != nil {
		return d, err
	}
	if !slices.ContainsFunc(found.Libraries, func(l host.Library) bool { return !l.IfMissing }) {
		// What every vendor has is of no use without a driver.
		log.Warning("Could not find any " + d.Vendor + " libraries on this host!")
		found.Libraries = nil
	}
	for _, l := range found.Libraries {
		d.Binds = append(d.Binds, build.Bind{Source: l.Path, Dest: "/.singularity.d/libs/" + l.Name, ReadOnly: true, IfMissing: l.IfMissing})
	}
	for _, p := range found.Programs {
		d.Binds = append(d.Binds, build.Bind{Source: p.Path, Dest: "/usr/bin/" + p.Name, ReadOnly: true})
	}
	return d, nil // the nodes are in /dev already
}

// siteSquashfs holds a build to what the administrator lets the making of an image
// use, unless its own arguments say less.
func siteSquashfs(o *build.Squashfs) error {
	c, err := action.LoadConfig(os.Getenv("SINGULARITY_CONFIG_FILE"))
	if err != nil {
		return err
	}
	if n := int(min(c.MksquashfsProcs, 1<<10)); n > 0 && (o.Workers == 0 || o.Workers > n) {
		o.Workers = n
	}
	if size, ok := conf.ParseSize(c.MksquashfsMem); ok {
		debug.SetMemoryLimit(size)
	}
	return nil
}

// verifyBase returns what checks the signatures of a base image.
func verifyBase(log *action.Log) func(context.Context, string, []string) ([]string, error) {
	return func(ctx context.Context, path string, require []string) ([]string, error) {
		o := verifyOptions{require: require}
		if err := o.check(); err != nil {
			return nil, err
		}
		var err error
		if o.Keyrings, err = verifyKeyrings(log); err != nil {
			return nil, err
		}
		if len(o.Keyrings) == 0 {
			return nil, source.ErrNoKeys
		}
		r, size, err := openRegular(path, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		f, err := sif.Open(r, size)
		if err != nil {
			return nil, err
		}
		o.Now = time.Now()
		if len(require) > 0 { // else anybody's key would do
			o.Lookup = serversOfEnv().lookUp(ctx, log)
		}
		result, err := sign.Verify(ctx, f, o.Options)
		if err != nil {
			return nil, err
		}
		var signers []string
		for _, s := range result.Signatures {
			if s.Err == nil && s.Key != nil {
				signers = append(signers, s.Key.Fingerprint().String())
			}
		}
		slices.Sort(signers)
		return slices.Compact(signers), nil
	}
}

// emulators are the names under which Debian's qemu-user-static is known to the
// kernel.
var emulators = map[string]string{"arm64": "aarch64", "arm": "arm", "amd64": "x86_64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x", "386": "i386"}

// emulated tells whether this kernel runs the programs of an architecture.
func emulated(arch string) bool {
	if _, _, inside := rootKind(); inside {
		return true // that was looked at before: this /proc is another one
	}
	name, ok := emulators[arch]
	if !ok {
		return false
	}
	text, err := os.ReadFile("/proc/sys/fs/binfmt_misc/qemu-" + name)
	return err == nil && strings.HasPrefix(string(text), "enabled")
}
