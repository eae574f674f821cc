#!/usr/bin/env node
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`elf2dmp needs Node.js 20.19 or later; this is ${process.version}`);
  process.exit(2);
}
const { main } = await import('../bundle/main.js');
await main(process.argv.slice(2));
