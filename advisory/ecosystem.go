package advisory

import (
	"strings"

	"singularity/sbom"
)

// identity is a package as advisories name it.
type identity struct {
	key
	version string
	scheme  string
	arch    string // as GOARCH, of modules of Go; "" if unknown
}

// identities are the names under which advisories speak of p, none if there are
// no advisories for its kind.
func identities(d sbom.Distro, p sbom.Package) []identity {
	simple := func(eco, name string) []identity {
		return []identity{{key{eco, name}, p.Version, eco, ""}}
	}
	switch p.Type {
	case "golang":
		return []identity{{key{"Go", p.Name}, p.Version, "Go", p.Arch}}
	case "pypi":
		return simple("PyPI", sbom.NormalPython(p.Name))
	case "npm":
		return simple("npm", p.Name)
	case "cargo":
		return simple("crates.io", p.Name)
	case "deb", "apk", "rpm":
		return systemIdentities(d, p)
	}
	return nil
}

// systemIdentities are those of a distribution's package. Debian, Ubuntu and
// Alpine speak of source packages, distributions with rpm of both.
func systemIdentities(d sbom.Distro, p sbom.Package) []identity {
	base, release := distroEcosystem(d)
	if base == "" {
		return nil
	}
	name, version := p.Name, p.Version
	if p.Type != "rpm" {
		if p.Source != "" {
			name = p.Source
		}
		if p.SourceVersion != "" {
			version = p.SourceVersion
		}
	}
	list := []identity{{key{base + ":" + release, name}, version, base, ""}}
	if release != "" {
		list = append(list, identity{key{base, name}, version, base, ""})
	}
	return list
}

// distroEcosystem is the ecosystem of OSV for a distribution, and the release.
func distroEcosystem(d sbom.Distro) (base, release string) {
	major, _, _ := strings.Cut(d.Version, ".")
	switch d.ID {
	case "debian", "raspbian":
		return "Debian", major
	case "ubuntu":
		return "Ubuntu", d.Version
	case "alpine":
		p := strings.SplitN(d.Version, ".", 3)
		if len(p) < 2 {
			return "Alpine", ""
		}
		return "Alpine", "v" + p[0] + "." + p[1]
	case "rocky":
		return "Rocky Linux", major
	case "almalinux":
		return "AlmaLinux", major
	case "rhel":
		return "Red Hat", major
	case "opensuse-leap":
		return "openSUSE", d.Version
	case "sles", "sled", "sle_hpc":
		return "SUSE", d.Version
	case "wolfi":
		return "Wolfi", ""
	case "chainguard":
		return "Chainguard", ""
	case "openeuler":
		return "openEuler", d.Version
	case "mageia":
		return "Mageia", major
	}
	return "", ""
}

// normalEcosystem brings the ecosystem of a record to the form of
// distroEcosystem: "Ubuntu:22.04:LTS" to "Ubuntu:22.04", "Red
// Hat:enterprise_linux:9::baseos" to "Red Hat:9", "openSUSE:Leap 15.5" to
// "openSUSE:15.5". It returns false for what is sold apart (Ubuntu Pro): that
// says nothing about the packages that everybody has.
func normalEcosystem(eco string) (string, bool) {
	base, rest, _ := strings.Cut(eco, ":")
	switch base {
	case "Ubuntu":
		if strings.HasPrefix(rest, "Pro") {
			return "", false
		}
		rest, _, _ = strings.Cut(rest, ":")
	case "Red Hat":
		f := strings.Split(rest, ":")
		rest = ""
		for i, s := range f {
			if s == "enterprise_linux" && i+1 < len(f) {
				rest, _, _ = strings.Cut(f[i+1], ".")
			}
		}
		if rest == "" {
			return "", false
		}
	case "openSUSE", "SUSE":
		if i := strings.LastIndexByte(rest, ' '); i >= 0 {
			rest = rest[i+1:]
		}
	case "openEuler":
		rest = strings.ReplaceAll(rest, "-LTS", "")
	}
	if rest == "" {
		return base, true
	}
	return base + ":" + rest, true
}

// normalName brings the name of a record's package to the form of identities.
func normalName(eco, name string) string {
	if eco == "PyPI" {
		return sbom.NormalPython(name)
	}
	return name
}
