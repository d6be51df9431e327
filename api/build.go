package api

import "time"

// BuildRequest asks the builder for an image.
type BuildRequest struct {
	DefinitionRaw       []byte            `json:"definitionRaw"` // the whole file
	LibraryRef          string            `json:"libraryRef"`    // where the image goes; empty for a place of its own for a day
	LibraryURL          string            `json:"libraryURL,omitempty"`
	BuilderRequirements map[string]string `json:"builderRequirements,omitempty"` // "arch"
	ContextDigest       string            `json:"contextDigest,omitempty"`       // sha256.HEX
	WorkingDir          string            `json:"workingDir,omitempty"`          // relative %files are relative to it
}

// BuildInfo is how far a build is. Fields behind LibraryURL are for pages.
type BuildInfo struct {
	ID            string `json:"id"`
	IsComplete    bool   `json:"isComplete"`
	ImageSize     int64  `json:"imageSize"` // more than 0 if it succeeded
	ImageChecksum string `json:"imageChecksum,omitempty"`
	LibraryRef    string `json:"libraryRef"` // library://...
	LibraryURL    string `json:"libraryURL"`

	State     string    `json:"state,omitempty"`
	Reason    string    `json:"reason,omitempty"` // why it did not succeed
	Arch      string    `json:"arch,omitempty"`
	Owner     string    `json:"owner,omitempty"`
	Priority  string    `json:"priority,omitempty"`
	Worker    string    `json:"worker,omitempty"` // for administrators
	Attempts  int       `json:"attempts,omitempty"`
	Submitted time.Time `json:"submitted,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
}

// ContextRequest announces an archive of files for a build.
type ContextRequest struct {
	Size   int64  `json:"size"`
	Digest string `json:"digest"` // sha256.HEX
}

// Definition is a definition file in parts.
type Definition struct {
	Header     map[string]string `json:"header"`
	ImageData  DefinitionImage   `json:"imageData"`
	BuildData  DefinitionBuild   `json:"buildData"`
	CustomData map[string]string `json:"customData"`
	Raw        []byte            `json:"raw"`
	FullRaw    []byte            `json:"fullraw"`
	AppOrder   []string          `json:"appOrder"`
	Warnings   []string          `json:"warnings,omitempty"`
}

// DefinitionImage is what goes into the image as it is.
type DefinitionImage struct {
	Metadata     []byte            `json:"metadata"`
	Labels       map[string]string `json:"labels"`
	ImageScripts ImageScripts      `json:"imageScripts"`
}

// ImageScripts are the sections that become scripts of the image.
type ImageScripts struct {
	Help        Script `json:"help"`
	Environment Script `json:"environment"`
	RunScript   Script `json:"runScript"`
	Test        Script `json:"test"`
	StartScript Script `json:"startScript"`
}

// DefinitionBuild is what is done while the image is built.
type DefinitionBuild struct {
	Files        []DefinitionFiles `json:"files"`
	BuildScripts BuildScripts      `json:"buildScripts"`
}

// BuildScripts are the sections that run at the build.
type BuildScripts struct {
	Pre       Script `json:"pre"`
	Setup     Script `json:"setup"`
	Post      Script `json:"post"`
	Test      Script `json:"test"`
	Arguments Script `json:"arguments"`
}

// Script is a section.
type Script struct {
	Args   string `json:"args"`
	Script string `json:"script"`
}

// DefinitionFiles is a %files section. Args of two words name another stage.
type DefinitionFiles struct {
	Args  string     `json:"args"`
	Files []FileCopy `json:"files"`
}

// FileCopy is a line of it.
type FileCopy struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

// BuildWorker is a worker as administrators see it.
type BuildWorker struct {
	Name   string    `json:"name"`
	Archs  []string  `json:"archs"`
	Slots  int       `json:"slots"`
	Seen   time.Time `json:"seen"`
	Builds []string  `json:"builds,omitempty"` // ids of those that run
}

// BuildQueue is the state of the builder for administrators.
type BuildQueue struct {
	Draining bool             `json:"draining"`
	States   map[string]int64 `json:"states"`
	Workers  []BuildWorker    `json:"workers"`
	Banned   []string         `json:"banned"` // names of users
}

// BuildOptions is what can be built, and within which limits.
type BuildOptions struct {
	Archs    []string      `json:"archs"`
	Limits   BuildLimits   `json:"limits"`
	Parallel int           `json:"parallel"` // builds of a user at a time
	Queued   int           `json:"queued"`   // builds of a user that are not over
	Active   int           `json:"active"`   // how many there are of the caller
	Keep     time.Duration `json:"keep"`     // of images without a place of their own
	Draining bool          `json:"draining,omitempty"`
	Banned   bool          `json:"banned,omitempty"` // the caller may not build
	// Signer is the key by which the service signs what was built, and SignerKey
	// that key to check by; empty if it does not.
	Signer    string `json:"signer,omitempty"`
	SignerKey string `json:"signerKey,omitempty"`
}

// RegistrySecret is what builds log in to a registry with. The password goes to
// the server and from there to workers; no list has it.
type RegistrySecret struct {
	Registry string    `json:"registry"` // HOST or HOST:PORT
	Username string    `json:"username"`
	Password string    `json:"password,omitempty"`
	Changed  time.Time `json:"changed,omitzero"`
}

// BuildUsage is what was built, by days and by users.
type BuildUsage struct {
	Days  []BuildCount `json:"days"`  // the oldest first
	Users []BuildCount `json:"users"` // who used most first
}

// BuildCount is what was built on a day, or for a user.
type BuildCount struct {
	Name      string        `json:"name"`
	Builds    int64         `json:"builds"`
	Succeeded int64         `json:"succeeded"`
	Time      time.Duration `json:"time"`  // with a worker
	Bytes     int64         `json:"bytes"` // of images
}

// BuildSettings changes the queue; a nil field changes nothing.
type BuildSettings struct {
	Draining *bool  `json:"draining,omitempty"`
	Ban      string `json:"ban,omitempty"`
	Unban    string `json:"unban,omitempty"`
}

// WorkerClaim is a worker that asks for a build.
type WorkerClaim struct {
	Worker string   `json:"worker"`
	Archs  []string `json:"archs"`
	Slots  int      `json:"slots"`
}

// BuildTask is a build for a worker. Fence is in every call about it: a worker
// that was given up has an old one.
type BuildTask struct {
	ID         string           `json:"id"`
	Fence      int64            `json:"fence"`
	Arch       string           `json:"arch"`
	Definition []byte           `json:"definition"`
	WorkingDir string           `json:"workingDir,omitempty"`
	Context    bool             `json:"context,omitempty"` // files come with it
	LibraryURL string           `json:"libraryURL"`
	Token      string           `json:"token,omitempty"` // reads what the user may read
	Registries []RegistrySecret `json:"registries,omitempty"`
	Limits     BuildLimits      `json:"limits"`
	Every      time.Duration    `json:"every"` // between signs of life
}

// BuildLimits are the limits of one build.
type BuildLimits struct {
	Time    time.Duration `json:"time"`
	Memory  int64         `json:"memory"`
	Disk    int64         `json:"disk"`
	CPUs    int           `json:"cpus"`
	PIDs    int           `json:"pids"`
	Output  int64         `json:"output"`
	Context int64         `json:"context"` // bytes of files, unpacked
}

// WorkerUpload asks where an image goes that is ready.
type WorkerUpload struct {
	Fence  int64  `json:"fence"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// WorkerTarget is the answer: a reference, and a token that may write that alone.
type WorkerTarget struct {
	Ref   string `json:"ref"`
	Token string `json:"token"`
	Done  bool   `json:"done,omitempty"` // the image is there already
}

// WorkerAlive is the answer to a sign of life.
type WorkerAlive struct {
	Up time.Duration `json:"up"` // how long this server has been running
}

// WorkerDone is the end of a build at a worker.
type WorkerDone struct {
	Fence  int64  `json:"fence"`
	State  string `json:"state"` // succeeded, failed, timed-out, or queued to give it back
	Reason string `json:"reason,omitempty"`
}
