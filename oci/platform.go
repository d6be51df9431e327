package oci

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Platform names a kind of machine.
type Platform struct {
	OS, Architecture, Variant string
	// Asked tells that a person named it, so that nothing else will do.
	Asked bool
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// HostPlatform is the platform of this machine.
func HostPlatform() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH} }

// otherNames are names of architectures that people use besides Go's.
var otherNames = [][3]string{
	{"x86_64", "amd64", ""}, {"aarch64", "arm64", ""}, {"armhf", "arm", "v7"}, {"armv7", "arm", "v7"}, {"armv7l", "arm", "v7"},
	{"armv6", "arm", "v6"}, {"arm32v7", "arm", "v7"}, {"arm32v6", "arm", "v6"}, {"arm32v5", "arm", "v5"}, {"arm64v8", "arm64", ""},
	{"i386", "386", ""}, {"i686", "386", ""}, {"ppc64el", "ppc64le", ""}, {"loongarch64", "loong64", ""},
}

// ParsePlatform reads the values of --arch and --platform, of which one at most
// is not empty. Without both it is the platform of this machine.
func ParsePlatform(arch, platform string) (Platform, error) {
	if arch != "" && platform != "" {
		return Platform{}, fmt.Errorf("cannot use --arch together with --platform: the one is a part of the other")
	}
	p := HostPlatform()
	if arch == "" && platform == "" {
		return p, nil
	}
	p.Asked = true
	parts := strings.Split(platform, "/")
	switch {
	case platform == "":
		p.Architecture = arch
	case len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, ""):
		return p, fmt.Errorf("cannot use platform %q: want os/architecture or os/architecture/variant, such as linux/arm64", platform)
	default:
		p.OS, p.Architecture = parts[0], parts[1]
		p.Variant = strings.Join(parts[2:], "")
	}
	if p.OS != "linux" {
		return p, fmt.Errorf("cannot use platform %q: only Linux images can be run", platform)
	}
	for _, n := range otherNames {
		if p.Architecture == n[0] {
			p.Architecture = n[1]
			if p.Variant == "" {
				p.Variant = n[2]
			}
		}
	}
	if strings.Trim(p.Architecture+p.Variant, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return p, fmt.Errorf("cannot use architecture %q: want a name such as amd64 or arm64", arch+platform)
	}
	return p.plain(), nil
}

// plain leaves out the variant that an architecture has where none is named.
func (p Platform) plain() Platform {
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

// platformOf reads the platform of a descriptor; none if it names none.
func platformOf(p *v1.Platform) Platform {
	if p == nil {
		return Platform{}
	}
	return Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.plain()
}

// fits tells whether an image for have is what want asks for.
func (p Platform) fits(have Platform) bool {
	return have.OS == p.OS && have.Architecture == p.Architecture && (p.Variant == "" || have.Variant == p.Variant)
}

// choose takes the image for a platform out of the descriptors of an index.
func choose(list []v1.Descriptor, want Platform) (v1.Descriptor, error) {
	var unnamed []v1.Descriptor
	var others []string
	var best *v1.Descriptor
	for i, d := range list {
		have := platformOf(d.Platform)
		switch {
		case d.Annotations["vnd.docker.reference.type"] != "" || have.OS == "unknown":
			// An attestation about another entry.
		case have.Architecture == "":
			unnamed = append(unnamed, d)
		case want.fits(have) && (best == nil || better(want, have, platformOf(best.Platform))):
			best = &list[i]
		default:
			others = append(others, have.String())
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case len(unnamed) == 1 && len(others) == 0:
		return unnamed[0], nil // its configuration tells
	case len(unnamed) > 1:
		return v1.Descriptor{}, fmt.Errorf("it holds %d images and does not say which one is for %s", len(unnamed), want)
	case len(others) == 0:
		return v1.Descriptor{}, fmt.Errorf("it holds no image")
	}
	slices.Sort(others)
	return v1.Descriptor{}, fmt.Errorf("it holds no image for %s, only for %s", want, strings.Join(slices.Compact(others), ", "))
}

// better prefers, where no variant is asked for, the variant that most machines
// of an architecture have.
func better(want, have, best Platform) bool {
	usual := want.Variant
	if want.Architecture == "arm" && usual == "" {
		usual = "v7"
	}
	return have.Variant == usual && best.Variant != usual
}

// checkPlatform compares the configuration of an image with what was asked for.
func checkPlatform(c *v1.ConfigFile, want Platform) error {
	have := Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}.plain()
	if !want.Asked || have.Architecture == "" {
		return nil
	}
	if have.Variant == "" {
		want.Variant = "" // many images do not tell
	}
	if !want.fits(have) {
		return fmt.Errorf("it is an image for %s, not for %s", have, want)
	}
	return nil
}
