// Command protogen generates Go code from the project's .proto files without a
// protoc binary: it compiles them itself and feeds the result to the plugins
// that tools/go.mod pins. The same sources and go.mod give the same bytes.
//
//	go run -C tools ./protogen [-check] api/kiloraft.proto
//
// Paths are relative to the project's root, the parent of the working
// directory. With -check nothing is written; the exit code is 1 if a generated
// file is not what the sources give.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// module is the prefix of every go_package, and is cut off from output paths.
const module = "github.com/kiloraft/kiloraft"

var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	root := flag.String("root", "..", "folder that the .proto paths are relative to")
	check := flag.Bool("check", false, "compare with the files on disk instead of writing them")
	flag.Parse()
	if err := run(*root, *check, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(root string, check bool, sources []string) error {
	if len(sources) == 0 {
		return errors.New("name at least one .proto file")
	}
	request, err := compile(root, sources)
	if err != nil {
		return err
	}
	for _, plugin := range plugins {
		files, err := generate(plugin, request)
		if err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		for _, f := range files {
			path := filepath.Join(root, filepath.FromSlash(f.GetName()))
			if err := emit(path, []byte(f.GetContent()), check); err != nil {
				return err
			}
		}
	}
	return nil
}

// compile parses the sources and describes them and all that they import.
func compile(root string, sources []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), sources...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: sources,
		Parameter:      proto.String("module=" + module),
	}
	seen := map[string]bool{}
	for _, f := range compiled {
		request.ProtoFile = appendWithImports(request.ProtoFile, f, seen)
	}
	return request, nil
}

// appendWithImports appends f after the files that it imports, as plugins expect.
func appendWithImports(files []*descriptorpb.FileDescriptorProto, f protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[f.Path()] {
		return files
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		files = appendWithImports(files, f.Imports().Get(i).FileDescriptor, seen)
	}
	return append(files, protodesc.ToFileDescriptorProto(f))
}

// generate runs one plugin at the version that go.mod pins.
func generate(plugin string, request *pluginpb.CodeGeneratorRequest) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	in, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, err
	}
	if response.GetError() != "" {
		return nil, errors.New(response.GetError())
	}
	return response.File, nil
}

// emit writes one file, or compares it with the one on disk.
func emit(path string, content []byte, check bool) error {
	if !check {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, content, 0o644)
	}
	present, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(present, content) {
		return fmt.Errorf("%s is not what its .proto file gives; run `make generate`", path)
	}
	return nil
}
