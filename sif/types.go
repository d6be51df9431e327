package sif

// DataType says what an object holds. Unknown values are kept and listed.
type DataType int32

// The object types.
const (
	DataDefFile       DataType = 0x4001 // text of the definition file
	DataEnvVar        DataType = 0x4002 // historic
	DataLabels        DataType = 0x4003 // historic
	DataPartition     DataType = 0x4004 // a file system, see Partition
	DataSignature     DataType = 0x4005 // see Signature
	DataJSON          DataType = 0x4006 // named JSON text
	DataGeneric       DataType = 0x4007 // anything
	DataCryptoMessage DataType = 0x4008 // a wrapped key, see CryptoMessage
	DataSBOM          DataType = 0x4009 // software bill of materials, see SBOM
	DataOCIRootIndex  DataType = 0x400a // image index of an OCI-SIF, see Object.Digest
	DataOCIBlob       DataType = 0x400b // any other blob of an OCI-SIF
)

// String returns the name that listings show.
func (t DataType) String() string {
	return nameOf(t-DataDefFile, "Def.FILE", "Env.Vars", "JSON.Labels", "FS", "Signature", "JSON.Generic",
		"Generic/Raw", "Cryptographic Message", "SBOM", "OCI.RootIndex", "OCI.Blob")
}

// FSType says which file system a partition holds.
type FSType int32

// The file systems.
const (
	FSSquashfs          FSType = 1
	FSExt3              FSType = 2 // in practice ext2, ext3 or ext4
	FSArchive           FSType = 3
	FSRaw               FSType = 4
	FSEncryptedSquashfs FSType = 5 // a LUKS2 container that holds a squashfs
	FSGocryptfsSquashfs FSType = 6 // a squashfs that holds a gocryptfs directory with a squashfs
)

// String returns the name that listings show.
func (t FSType) String() string {
	return nameOf(t-1, "Squashfs", "Ext3", "Archive", "Raw", "Encrypted squashfs", "Gocryptfs squashfs")
}

// PartType says what a partition is for.
type PartType int32

// The uses of a partition.
const (
	PartSystem  PartType = 1
	PartPrimary PartType = 2 // the root file system that runs
	PartData    PartType = 3
	PartOverlay PartType = 4
)

// String returns the name that listings show; a star marks the primary one.
func (t PartType) String() string { return nameOf(t-1, "System", "*System", "Data", "Overlay") }

// HashType names the digest of a signature.
type HashType int32

// The digests.
const (
	HashSHA256     HashType = 1
	HashSHA384     HashType = 2
	HashSHA512     HashType = 3
	HashBLAKE2s256 HashType = 4
	HashBLAKE2b256 HashType = 5
)

// String returns the name that listings show.
func (t HashType) String() string {
	return nameOf(t-1, "SHA-256", "SHA-384", "SHA-512", "BLAKE2s-256", "BLAKE2b-256")
}

// FormatType says how a crypto message is encoded.
type FormatType int32

// The encodings.
const (
	FormatOpenPGP FormatType = 1
	FormatPEM     FormatType = 2
)

// String returns the name that listings show.
func (t FormatType) String() string { return nameOf(t-1, "OpenPGP", "PEM") }

// MessageType says what a crypto message is.
type MessageType int32

// The messages.
const (
	MessageClearSignature MessageType = 0x100
	MessageRSAOAEP        MessageType = 0x200
)

// String returns the name that listings show.
func (t MessageType) String() string {
	switch t {
	case MessageClearSignature:
		return "Clear Signature"
	case MessageRSAOAEP:
		return "RSA-OAEP"
	}
	return "Unknown"
}

// SBOMFormat says how a bill of materials is written.
type SBOMFormat int32

// The formats.
const (
	SBOMCycloneDXJSON SBOMFormat = 1
	SBOMCycloneDXXML  SBOMFormat = 2
	SBOMGitHubJSON    SBOMFormat = 3
	SBOMSPDXJSON      SBOMFormat = 4
	SBOMSPDXRDF       SBOMFormat = 5
	SBOMSPDXTagValue  SBOMFormat = 6
	SBOMSPDXYAML      SBOMFormat = 7
	SBOMSyftJSON      SBOMFormat = 8
)

// String returns the name that listings and command lines use.
func (t SBOMFormat) String() string {
	return nameOf(t-1, "cyclonedx-json", "cyclonedx-xml", "github-json", "spdx-json", "spdx-rdf",
		"spdx-tag-value", "spdx-yaml", "syft-json")
}

// UnknownArch is the architecture of an image or partition that names none or
// one that this package does not know.
const UnknownArch = "unknown"

// Arch returns the architecture (as GOARCH spells it) of code, the number that
// the header and partitions store in two digits, or UnknownArch.
func Arch(code int) string {
	return nameOr(UnknownArch, code-1, "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle",
		"mips64", "mips64le", "s390x", "riscv64", "loong64")
}

const maxArch = 13

// archCode is the inverse of Arch, in the three bytes of the file.
func archCode(arch string) (code [3]byte, ok bool) {
	for n := 1; n <= maxArch; n++ {
		if Arch(n) == arch {
			return [3]byte{'0' + byte(n/10), '0' + byte(n%10), 0}, true
		}
	}
	return [3]byte{'0', '0', 0}, false
}

// archName reads the three bytes of the file.
func archName(b []byte) string {
	if b[0] < '0' || b[0] > '9' || b[1] < '0' || b[1] > '9' || b[2] != 0 {
		return UnknownArch
	}
	return Arch(int(b[0]-'0')*10 + int(b[1]-'0'))
}

func nameOf[T ~int32](i T, names ...string) string { return nameOr("Unknown", int(i), names...) }

func nameOr(other string, i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return other
	}
	return names[i]
}
