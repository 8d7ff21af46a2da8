package main

import (
	"runtime"
	"runtime/debug"
)

// spareMemory is how much unused memory the process keeps for itself, in bytes.
const spareMemory = 4 << 20

// trimMemory gives memory back that a burst of calls took: the runtime alone keeps it for minutes, and a daemon mostly waits.
func trimMemory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapIdle-m.HeapReleased+garbage(m) > spareMemory {
		debug.FreeOSMemory()
	}
}

// garbage estimates what the next collection would free: what was allocated since the last one.
func garbage(m runtime.MemStats) uint64 {
	live := m.NextGC / 2 // the goal is twice what was alive
	return m.HeapAlloc - min(live, m.HeapAlloc)
}
