package docs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlocks(t *testing.T) {
	text := "# Title\n```sh\n# first\nmake  # why\n\ndocker run -d \\\n    --network web \\\n  nginx\n```\nwords\n\n" +
		"  ```console\n  $ one\n  says this\n  and that\n  $ two\n  ```\n```\na drawing\n```\n"
	blocks := Blocks("README.md", text)
	var places []Block
	var commands [][]Command
	for _, b := range blocks {
		commands = append(commands, b.Commands())
		b.Text = ""
		places = append(places, b)
	}
	if diff := cmp.Diff([]Block{{"README.md", "Title", 3, "sh", ""}, {"README.md", "Title", 13, "console", ""}, {"README.md", "Title", 19, "", ""}}, places); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
	want := [][]Command{
		{{"make", ""}, {"docker run -d --network web nginx", ""}},
		{{"one", "says this\nand that\n"}, {"two", ""}},
		nil,
	}
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"docker ps", "ufw"}, Spans("Say `docker ps` or\n```sh\necho `date`\n```\n* `ufw`\n")); diff != "" {
		t.Errorf("code in sentences (-want +got):\n%s", diff)
	}
}
