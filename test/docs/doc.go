// Package docs reads the project's documents as a user does who copies their commands.
//
// [Blocks] finds what stands in fences; a block's [Block.Commands] are what is to be typed, with what the document says about the answer. Tests type each
// of them, and check what the words around promise: who is served, and who is not. TestDocuments has a real engine with ufw for that, TestUnits a host with
// systemd for docs/operations.md. What takes another host yet, such as a managed plugin, is in a table by lines, with the test that has that host: it gets
// them by [Left], and fails where it does not ask for all. Of what would be a test within a test, such as "make test", TestRehearsed asks make what it would do.
//
// A command that is in no table is typed, and a table that names what no document has fails; so does a command that stands within a sentence,
// where nobody would type it, unless it is one that is only spoken of.
package docs
