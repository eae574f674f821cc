'use strict';
// Loads the bundle, with its compiled code where the build left some for this engine: that halves the time to start.
const { isAscii } = require('node:buffer');
const { readFileSync } = require('node:fs');
const { wrap } = require('node:module');
const { dirname } = require('node:path');
const { Script } = require('node:vm');

/** Where the compiled code of a bundle is: its last line names its contents, so that no other's code is taken. */
const compiledFile = (file, source) =>
  `${file}.${source.slice(source.lastIndexOf('//') + 2).trim()}.${process.versions.v8}-${process.arch}.compiled`;

/** The text of a bundle: of ASCII, as the build makes it, at half the size. */
function read(file) {
  const bytes = readFileSync(file);
  return bytes.toString(isAscii(bytes) ? 'latin1' : 'utf8');
}

/** The bundle as Node wraps a CommonJS module; an engine that does not know `compiled` says so, and compiles it. */
const compile = (file, source, compiled) => new Script(wrap(source), { filename: file, cachedData: compiled });

/** What the compiled bundle exports. */
function run(file, script) {
  const module = { exports: {} };
  script.runInThisContext()(module.exports, require, module, file, dirname(file));
  return module.exports;
}

/** What the bundle exports. */
function load(file) {
  const source = read(file);
  let compiled;
  try {
    compiled = readFileSync(compiledFile(file, source));
  } catch {
    return require(file);
  }
  // Node maps what `require` loads.
  return process.sourceMapsEnabled ? require(file) : run(file, compile(file, source, compiled));
}

module.exports = { load, read, compile, run, compiledFile };
