/** Holds reports against the schemas that the package ships. */
import { readdirSync, readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect } from 'vitest';

const SCHEMAS = new URL('../../schema/', import.meta.url);

/** The names of the documents: `convert`, `info`, … */
export const DOCUMENTS = readdirSync(SCHEMAS)
  .map((file) => file.replace('.schema.json', ''))
  .filter((name) => name !== 'common');

// Formats are not checked by Ajv alone, and the schemas use none.
const ajv = new Ajv2020({
  allErrors: true,
  strict: true,
  allowUnionTypes: true,
  strictTypes: false,
  strictRequired: false,
});
for (const name of ['common', ...DOCUMENTS]) {
  const file = `${name}.schema.json`;
  ajv.addSchema(JSON.parse(readFileSync(new URL(file, SCHEMAS), 'utf8')), file);
}

/** The report as JSON has it, which is what the schema of that name says. */
export function held<T>(name: string, report: T): T {
  const data = JSON.parse(JSON.stringify(report)) as T & { schema: string };
  const validate = ajv.getSchema(`${name}.schema.json`);
  if (!validate) throw new Error(`there is no schema ${name}`);
  validate(data);
  expect(validate.errors ?? []).toEqual([]);
  expect(data.schema).toBe(`elf2dmp-${name}-1`);
  return data;
}
