package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"

	"singularity/action"
	"singularity/sif"
)

// The texts here are read by other people's scripts: columns, words and blanks
// stay as they are.

// A row is a line "Key: value". Rows without a value are left out.
type row struct{ key, value string }

// writeRows writes rows with their values in one column. Values are shown on one
// line and without control characters.
func writeRows(w io.Writer, indent string, gap int, rows []row) error {
	width := 0
	for _, r := range rows {
		if r.value != "" {
			width = max(width, len(r.key)+1+gap)
		}
	}
	var b strings.Builder
	for _, r := range rows {
		if r.value != "" {
			fmt.Fprintf(&b, "%s%-*s%s\n", indent, width, r.key+":", oneLine(r.value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func oneLine(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(action.Printable(s))
}

func writeSIFHeader(w io.Writer, h sif.Header) error {
	rows := []row{
		{"Launch Script", strings.TrimSuffix(h.LaunchScript, "\n")},
		{"Version", h.Version},
		{"Primary Architecture", knownArch(h.Arch)},
		{"ID", knownID(h)},
		{"Created At", sifTime(h.Created)},
		{"Modified At", sifTime(h.Modified)},
		{"Descriptors Free", fmt.Sprint(h.FreeSlots)},
		{"Descriptors Total", fmt.Sprint(h.TotalSlots)},
		{"Descriptors Offset", fmt.Sprint(h.TableOff)},
		{"Descriptors Size", byteSize(h.TableSize)},
		{"Data Offset", fmt.Sprint(h.DataOff)},
		{"Data Size", byteSize(h.DataSize)},
	}
	return writeRows(w, "", 1, rows)
}

func writeSIFList(w io.Writer, objects []sif.Object) error {
	rule := strings.Repeat("-", 78)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE\n%s\n", rule, rule)
	for _, o := range objects {
		place := fmt.Sprintf("%d-%d", o.Off, o.Off+o.Size)
		fmt.Fprintf(&b, "%-4d |%-7s |%-7s |%-24s  |%s\n", o.ID, groupText(o), linkText(o, "%-3d (G)"), place, typeText(o))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// typeText is the type with what matters most about it.
func typeText(o sif.Object) string {
	s := o.Type.String()
	if p, ok := o.Partition(); ok {
		return fmt.Sprintf("%s (%s/%s/%s)", s, p.FS, p.Type, p.Arch)
	}
	if sig, ok := o.Signature(); ok {
		return fmt.Sprintf("%s (%s)", s, sig.Hash)
	}
	if m, ok := o.CryptoMessage(); ok {
		return fmt.Sprintf("%s (%s/%s)", s, m.Format, m.Message)
	}
	if b, ok := o.SBOM(); ok {
		return fmt.Sprintf("%s (%s)", s, b.Format)
	}
	return s
}

func writeSIFInfo(w io.Writer, o sif.Object) error {
	rows := []row{
		{"Data Type", o.Type.String()},
		{"ID", fmt.Sprint(o.ID)},
		{"Group ID", groupText(o)},
		{"Linked ID", linkText(o, "%d (G)")},
		{"Offset", fmt.Sprint(o.Off)},
		{"Size", fmt.Sprint(o.Size)},
		{"Created At", sifTime(o.Created)},
		{"Modified At", sifTime(o.Modified)},
		{"Name", o.Name},
	}
	if p, ok := o.Partition(); ok {
		rows = append(rows, row{"Filesystem Type", p.FS.String()}, row{"Partition Type", p.Type.String()}, row{"Architecture", p.Arch})
	}
	if s, ok := o.Signature(); ok {
		rows = append(rows, row{"Hash Type", s.Hash.String()}, row{"Entity", entityText(s, "%X")})
	}
	if m, ok := o.CryptoMessage(); ok {
		rows = append(rows, row{"Format Type", m.Format.String()}, row{"Message Type", m.Message.String()})
	}
	if b, ok := o.SBOM(); ok {
		rows = append(rows, row{"Format", b.Format.String()})
	}
	if d, ok := o.Digest(); ok {
		rows = append(rows, row{"Digest", string(d)})
	}
	return writeRows(w, "  ", 2, rows)
}

func groupText(o sif.Object) string {
	if o.Group == 0 {
		return "NONE"
	}
	return fmt.Sprint(o.Group)
}

func linkText(o sif.Object, group string) string {
	switch {
	case o.LinkIsGroup:
		return fmt.Sprintf(group, o.Link)
	case o.Link == 0:
		return "NONE"
	}
	return fmt.Sprint(o.Link)
}

// entityText is the fingerprint in s, or nothing if there is none.
func entityText(s sif.Signature, format string) string {
	if s.Entity == [20]byte{} {
		return ""
	}
	return fmt.Sprintf(format, s.Entity)
}

func knownArch(arch string) string {
	if arch == sif.UnknownArch {
		return ""
	}
	return arch
}

func knownID(h sif.Header) string {
	if h.ID == (sif.ID{}) {
		return ""
	}
	return h.ID.String()
}

// sifTime is nothing for the time that deterministic images have.
func sifTime(seconds int64) string {
	t := time.Unix(seconds, 0).UTC()
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02 15:04:05 -0700 MST")
}

// byteSize rounds n to the largest unit that it fills.
func byteSize(n int64) string {
	unit := (max(bits.Len64(uint64(n)), 1) - 1) / 10
	if n < 0 || unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	shift := 10 * unit
	rounded := n >> shift
	if n>>(shift-1)&1 == 1 {
		rounded++
	}
	return fmt.Sprintf("%d %ciB", rounded, "KMGTPE"[unit-1])
}

// sifHeaderJSON and sifObjectJSON are what --json prints: sizes and offsets in
// bytes, times as in RFC 3339, what is not set is left out.
type sifHeaderJSON struct {
	LaunchScript string `json:"launchScript,omitempty"`
	Version      string `json:"version"`
	Arch         string `json:"primaryArchitecture,omitempty"`
	ID           string `json:"id,omitempty"`
	Created      string `json:"created,omitempty"`
	Modified     string `json:"modified,omitempty"`
	FreeSlots    int64  `json:"descriptorsFree"`
	TotalSlots   int64  `json:"descriptorsTotal"`
	TableOff     int64  `json:"descriptorsOffset"`
	TableSize    int64  `json:"descriptorsSize"`
	DataOff      int64  `json:"dataOffset"`
	DataSize     int64  `json:"dataSize"`
}

type sifObjectJSON struct {
	ID       uint32 `json:"id"`
	Type     string `json:"type"`
	TypeCode int32  `json:"typeCode"`
	Name     string `json:"name,omitempty"`
	Group    uint32 `json:"group,omitempty"`
	Link     uint32 `json:"link,omitempty"`
	LinkKind string `json:"linkKind,omitempty"` // object, group
	Off      int64  `json:"offset"`
	Size     int64  `json:"size"`
	Created  string `json:"created,omitempty"`
	Modified string `json:"modified,omitempty"`

	FS       string `json:"filesystemType,omitempty"`
	PartType string `json:"partitionType,omitempty"`
	Primary  bool   `json:"primary,omitempty"`
	Arch     string `json:"architecture,omitempty"`
	Hash     string `json:"hashType,omitempty"`
	Entity   string `json:"entity,omitempty"`
	Format   string `json:"format,omitempty"`
	Message  string `json:"messageType,omitempty"`
	Digest   string `json:"digest,omitempty"`
}

func headerJSON(h sif.Header) sifHeaderJSON {
	return sifHeaderJSON{h.LaunchScript, h.Version, knownArch(h.Arch), knownID(h), jsonTime(h.Created), jsonTime(h.Modified),
		h.FreeSlots, h.TotalSlots, h.TableOff, h.TableSize, h.DataOff, h.DataSize}
}

func objectsJSON(f *sif.File) []sifObjectJSON {
	list := []sifObjectJSON{}
	for _, o := range f.Objects() {
		list = append(list, objectJSON(o))
	}
	return list
}

func objectJSON(o sif.Object) sifObjectJSON {
	j := sifObjectJSON{ID: o.ID, Type: o.Type.String(), TypeCode: int32(o.Type), Name: o.Name, Group: o.Group, Link: o.Link,
		Off: o.Off, Size: o.Size, Created: jsonTime(o.Created), Modified: jsonTime(o.Modified)}
	if o.LinkIsGroup {
		j.LinkKind = "group"
	} else if o.Link != 0 {
		j.LinkKind = "object"
	}
	if p, ok := o.Partition(); ok {
		j.FS, j.PartType, j.Arch = p.FS.String(), strings.TrimPrefix(p.Type.String(), "*"), p.Arch
		j.Primary = p.Type == sif.PartPrimary
	}
	if s, ok := o.Signature(); ok {
		j.Hash, j.Entity = s.Hash.String(), entityText(s, "%x")
	}
	if m, ok := o.CryptoMessage(); ok {
		j.Format, j.Message = m.Format.String(), m.Message.String()
	}
	if b, ok := o.SBOM(); ok {
		j.Format = b.Format.String()
	}
	if d, ok := o.Digest(); ok {
		j.Digest = string(d)
	}
	return j
}

// jsonTime is nothing for a time that RFC 3339 cannot say, too.
func jsonTime(seconds int64) string {
	t := time.Unix(seconds, 0).UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return ""
	}
	return t.Format(time.RFC3339)
}

// writeIndented writes v as JSON that a terminal can take.
func writeIndented(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escapeJSON(b.String()))
	return err
}
