// The versions of the packages that the scripts beside this file run.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

/** What a package below `folder` says of itself. Not by `require`: not every package exports it. */
function describe(name, folder = __dirname) {
  const manifest = path.join(folder, 'node_modules', name, 'package.json');
  return { package: name, version: JSON.parse(fs.readFileSync(manifest, 'utf8')).version };
}

module.exports = { describe };
