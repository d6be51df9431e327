package sbom

import (
	"strings"

	"github.com/package-url/packageurl-go"
)

// osNamespace names the distribution in the purl of a system package.
func (d Distro) osNamespace(typ string) string {
	if d.ID != "" {
		return d.ID
	}
	return map[string]string{"deb": "debian", "apk": "alpine"}[typ]
}

// system tells whether typ is of a system's package manager.
func system(typ string) bool { return typ == "deb" || typ == "apk" || typ == "rpm" }

// PURL names the package across programs and formats: the qualifiers arch,
// upstream (the source package) and distro are those that other makers of SBOMs
// use.
func (p Package) PURL(d Distro) string {
	u := packageurl.PackageURL{Type: p.Type, Name: p.Name, Version: p.Version}
	var q packageurl.Qualifiers
	if system(p.Type) {
		u.Namespace = d.osNamespace(p.Type)
		if p.Arch != "" {
			q = append(q, packageurl.Qualifier{Key: "arch", Value: p.Arch})
		}
		if d.ID != "" {
			q = append(q, packageurl.Qualifier{Key: "distro", Value: strings.TrimSuffix(d.ID+"-"+d.Version, "-")})
		}
		if p.Source != "" || p.SourceVersion != "" {
			up := p.sourceName()
			if p.SourceVersion != "" {
				up += "@" + p.SourceVersion
			}
			q = append(q, packageurl.Qualifier{Key: "upstream", Value: up})
		}
	} else if i := strings.LastIndexByte(p.Name, '/'); i > 0 {
		u.Namespace, u.Name = p.Name[:i], p.Name[i+1:]
	}
	if p.Type == "golang" && p.Name != "stdlib" {
		u.Version = "v" + p.Version
	}
	if p.Type == "pypi" {
		u.Name = NormalPython(p.Name)
	}
	u.Qualifiers = q
	return u.ToString()
}

func (p Package) sourceName() string {
	if p.Source != "" {
		return p.Source
	}
	return p.Name
}

// NormalPython writes the name of a Python package as their index does (PEP 503).
func NormalPython(name string) string {
	var b strings.Builder
	dash := false
	for _, c := range strings.ToLower(name) {
		if c == '-' || c == '_' || c == '.' {
			dash = true
			continue
		}
		if dash && b.Len() > 0 {
			b.WriteByte('-')
		}
		dash = false
		b.WriteRune(c)
	}
	return b.String()
}

// fromPURL is the package that a purl names. It returns false for kinds that
// are not looked after here.
func fromPURL(s string) (Package, Distro, bool) {
	if len(s) > 8*maxField {
		return Package{}, Distro{}, false
	}
	u, err := packageurl.FromString(s)
	if err != nil {
		return Package{}, Distro{}, false
	}
	p := Package{Type: u.Type, Name: u.Name, Version: u.Version}
	var d Distro
	q := u.Qualifiers.Map()
	switch u.Type {
	case "deb", "apk", "rpm":
		p.Arch = q["arch"]
		d.ID = u.Namespace
		if id, version, ok := strings.Cut(q["distro"], "-"); ok {
			d.ID, d.Version = id, version
		}
		p.Source, p.SourceVersion, _ = strings.Cut(q["upstream"], "@")
		if p.Type == "rpm" {
			if strings.HasSuffix(p.Source, ".rpm") {
				p.Source, p.SourceVersion = splitSourceRPM(p.Source)
			}
			if e := q["epoch"]; e != "" && e != "0" && !strings.Contains(p.Version, ":") {
				p.Version = e + ":" + p.Version
			}
		}
		if p.Source == p.Name {
			p.Source = ""
		}
	case "golang", "pypi", "npm", "cargo":
		if u.Namespace != "" {
			p.Name = u.Namespace + "/" + u.Name
		}
		if p.Type == "golang" {
			p.Version = strings.TrimPrefix(p.Version, "v")
		}
	default:
		return Package{}, Distro{}, false
	}
	return p, d, true
}
