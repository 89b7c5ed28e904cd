package control

import (
	"slices"
	"strings"
)

// entries returns the table.
func entries() []*entry {
	table := []*entry{
		{dir: rootDir, name: "status", mode: readable, open: text((*Tree).writeStatus)},
		{dir: rootDir, name: "maps", mode: readable, open: text((*Tree).writeMaps)},
		{dir: rootDir, name: "events", mode: readable, open: openEvents, size: eventsSize, may: isOwner},
		{dir: rootDir, name: "metrics", mode: readable, open: text((*Tree).writeMetrics)},
		{dir: rootDir, name: "faults", mode: readable, open: text((*Tree).writeFaults), may: isOwner},
		{dir: rootDir, name: "pending", mode: readable, open: text((*Tree).writePending), may: isOwner, history: true, handOver: true},
		{dir: rootDir, name: "durable", mode: directory, open: openDurableDir, history: true},
		{dir: rootDir, name: "promises", mode: everybodyRW, open: openPromises, history: true},
		{dir: rootDir, name: "ctl", mode: ownersRW, open: openCtl},
		{dir: rootDir, name: "files", mode: directory},
		{dir: rootDir, name: "mappings", mode: removable, open: openMappings},

		{dir: fileDir, name: "status", mode: readable, open: text((*Tree).writeFileStatus)},
		{dir: fileDir, name: "pages", mode: readable, open: openPages[pagesText]},
		{dir: fileDir, name: "map", mode: readable, open: openPages[mapText]},
		{dir: fileDir, name: "memory", mode: ownersRW, open: openContents((*Tree).readMemory), size: memorySize},
		{dir: fileDir, name: "backing", mode: readable, open: openContents((*Tree).readBacking), size: (*Tree).backingSize},
		{dir: fileDir, name: "unsynced", mode: readable, open: text((*Tree).writeUnsynced)},
		{dir: fileDir, name: "durable", mode: readable, open: openContents((*Tree).readDurable), size: (*Tree).durableSize, history: true},
		{dir: fileDir, name: "ctl", mode: ownersRW, open: openCtl},

		{dir: mappingDir, name: "status", mode: readable, open: text((*Tree).writeMappingStatus), may: maySee},
		{dir: mappingDir, name: "pages", mode: readable, open: openPages[pagesText], may: maySee},
		{dir: mappingDir, name: "map", mode: readable, open: openPages[mapText], may: maySee},
		{dir: mappingDir, name: "memory", mode: ownersRW, open: openMappingMemory, size: mappingSize, may: isOwner},
		{dir: mappingDir, name: "ctl", mode: ownersRW, open: openCtl, may: isOwner},

		// The directories whose names are up to others.
		{dir: nowhere, name: string(rootDir), mode: directory, open: openDir},
		{dir: mirrorDir, name: string(mirrorDir), mode: directory},
		{dir: mirrorDir, name: string(fileDir), mode: directory, open: openDir},
		{dir: durableDir, name: string(durableDir), mode: directory, open: openDurableDir, history: true},
		{dir: durableDir, name: string(durableFile), mode: readable, open: openContents((*Tree).readDurable), history: true, cached: true},
		{dir: mappingsDir, name: string(mappingDir), mode: directory, open: openDir, may: maySee},
	}
	for i, e := range table {
		e.number = uint64(i)
	}
	return table
}

// entriesFor returns the rows of a mount with or without a history.
func entriesFor(history bool) []*entry {
	return slices.DeleteFunc(entries(), func(e *entry) bool { return e.history && !history })
}

// File is a file or directory of the control tree that has a fixed name.
type File struct {
	Dir, Name string // as mapfs-control(5) has them: "/files/PATH", "status"
	Mode      uint32 // type and permissions
}

// Files returns the table of the control tree.
func Files() []File {
	var files []File
	for _, e := range entries() {
		if !strings.HasPrefix(e.name, "/") {
			files = append(files, File{string(e.dir), e.name, e.mode})
		}
	}
	return files
}
