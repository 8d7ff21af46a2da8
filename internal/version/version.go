// Package version says which build of Drawbridge this is.
package version

import "runtime/debug"

// Number is the release; set with -ldflags "-X …/internal/version.Number=1.2.3".
var Number = "0.1.0-dev"

// String returns the release and, where the build knows it, the commit.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Number
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return Number + " (" + s.Value[:12] + ")"
		}
	}
	return Number
}
